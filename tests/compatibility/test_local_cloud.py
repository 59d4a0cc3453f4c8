"""Eight apps on one standing local cloud; ``make compatibility`` runs all of them there."""

from __future__ import annotations

from pathlib import Path

import pytest

from compatibility import cloud_engine, flower_engine
from compatibility.catalogue import CATALOGUE, App
from compatibility.outcome import differences
from pipelines.local.cloud import LocalCloud

SAMPLE = (
    "stock-fedadam",
    "private-client-adaptive",
    "xgboost-cyclic",
    "numpy-metrics",
    "config-per-client",
    "own-loop",
    "kaplan-meier",
    "secure-aggregation",
)
"""One of each kind."""


@pytest.mark.proof
@pytest.mark.parametrize("name", SAMPLE)
def test_an_app_gives_the_same_numbers_on_a_local_cloud(
    name: str, reached: LocalCloud, tmp_path: Path
) -> None:
    app = next(app for app in CATALOGUE if app.name == name)
    if app.missing:
        pytest.xfail(f"issue 13, item {app.missing}")
    check_on_cloud(app, reached, tmp_path)


def check_on_cloud(app: App, cloud: LocalCloud, folder: Path) -> None:
    """Run an app on the cloud and under Flower's engine, and compare."""
    written = app.write(folder / "app")
    ours, nodes = cloud_engine.run(cloud, written)
    (folder / "flower").mkdir()
    flowers = flower_engine.run(written, nodes, folder / "flower")
    flowers.files = {}
    assert differences(ours, flowers, metrics=app.metrics, relative=app.tolerance) == []
    assert bool(ours.model) == app.model
