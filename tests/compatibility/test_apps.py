"""Each app of the catalogue gives here what it gives under Flower's own engine."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from support.commands import asked

from compatibility import flower_engine, report
from compatibility.catalogue import CATALOGUE, App
from compatibility.our_engine import OurEngine, cohorts_of
from edge.training.app_bundle import FlowerApp
from edge.training.app_modules import app_on_path, load_component
from fl_runtime.server.apps.check_app import AppDescription, describe


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
    ours = OurEngine(written, tmp_path / "ours").run()
    assert app.differences(ours, flowers) == []
    assert _described(written).ends_with in ("either", "model" if app.model else "analysis")


def _described(app: FlowerApp) -> AppDescription:
    with app_on_path(app.folder):
        client = load_component(app.folder, app.client_app, ClientApp)
        return describe(app, client, load_component(app.folder, app.server_app, ServerApp))


def test_the_document_lists_the_apps_as_they_are() -> None:
    text = report.FILE.read_text()
    assert text == report.render(text), "`make compatibility-document` writes it"


def test_checking_an_app_says_what_it_uses_and_how_it_will_run(tmp_path: Path) -> None:
    (app,) = (app for app in CATALOGUE if app.name == "kaplan-meier")
    found = asked("check", str(app.write(tmp_path).folder), home=tmp_path)
    assert (found["app"], found["ends_with"], found["rounds_key"]) == ("kaplan-meier", "either", "")
    uses = {use["uses"]: use for use in found["features"]}
    assert uses["Fitter"]["where"] == "kaplan_meier/kaplan_meier.py:21"
    assert "run" in uses["write_text"]["runs"]
