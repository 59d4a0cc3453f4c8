"""Eight apps on one standing local cloud; ``make compatibility`` runs all of them there."""

from __future__ import annotations

from pathlib import Path

import pytest

from compatibility import cloud_engine, flower_engine
from compatibility.catalogue import CATALOGUE
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
    if app.needs:
        pytest.importorskip(app.needs)
    written = app.write(tmp_path / "app")
    ours, nodes = cloud_engine.run(reached, written)
    (tmp_path / "flower").mkdir()
    flowers = flower_engine.run(written, nodes, tmp_path / "flower")
    assert app.differences(ours, flowers, files=False) == []
