"""Each app of the catalogue gives here what it gives under Flower's own engine."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from compatibility import flower_engine
from compatibility.catalogue import CATALOGUE, App
from compatibility.our_engine import OurEngine, cohorts_of
from compatibility.outcome import differences


def _marked(app: App) -> object:
    marks = []
    if app.missing:
        marks.append(pytest.mark.xfail(strict=True, reason=f"issue 13, item {app.missing}"))
    return pytest.param(app, id=app.name, marks=marks)


@pytest.mark.parametrize("app", [_marked(app) for app in CATALOGUE])
def test_an_app_gives_the_same_numbers_here_and_under_flower(app: App, tmp_path: Path) -> None:
    if app.needs:
        pytest.importorskip(app.needs)
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    written = app.write(tmp_path / "app")
    for folder in ("flower", "ours"):
        (tmp_path / folder).mkdir()
    nodes = [member for cohort in cohorts_of(written) for member in cohort.members]
    flowers = flower_engine.run(written, nodes, tmp_path / "flower")
    flowers.files = {name: flowers.files[name] for name in app.files}
    ours = OurEngine(written, tmp_path / "ours").run()
    assert differences(ours, flowers, metrics=app.metrics, relative=app.tolerance) == []
    assert bool(ours.model) == app.model
