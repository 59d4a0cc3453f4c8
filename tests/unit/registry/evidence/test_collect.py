"""Evidence is collected from what a run has left, and from the devices' heartbeats."""

from __future__ import annotations

import pytest
from fakes.devices_table import status
from fakes.evidence import comparison, evidence, leave, package, round_record
from fakes.objects import MemoryObjects
from fakes.serving import serving

from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import model_key
from registry.evidence.collect import EVIDENCE, collect, read_evidence


def test_all_parts_are_there() -> None:
    found = evidence()
    assert (found.model_version, found.metric, found.goal) == ("x/2", "loss", "minimize")
    assert found.value == 1.0, "the metric as the app reports it, not the score"
    assert found.coverage.examples == sum(10 * (i + 1) for i in range(6))
    assert len(found.lineage.updates) == 6
    assert found.lineage.parameters["app.epochs"] == "2"
    assert found.licence == "Apache-2.0"
    assert (found.lineage.rounds, found.compared.round) == (2, 2)


def test_an_app_that_runs_its_own_rounds_has_its_evidence_too() -> None:
    found = evidence(None, devices=[], rounds=[round_record(1), round_record(2)])
    own = evidence(None, reason="The app runs its own rounds.")
    assert own.compared.reason == "The app runs its own rounds."
    assert (found.compared.champion, found.compared.devices, found.lineage.rounds) == ("", 6, 2)
    assert {(g.kind, g.name) for g in found.compared.groups} >= {
        ("site", "north"),
        ("cohort", "c0000"),
    }


def test_the_goal_is_the_runs_not_the_names() -> None:
    assert evidence().goal == "minimize"
    found = evidence(goal="maximize")
    assert (found.goal, found.compared.worse_by > 0) == ("maximize", True)


def test_drift_is_that_of_devices_that_use_the_champion() -> None:
    devices = [
        status("d0", "x/1", serving(9.0)),
        status("d1", "x/0", serving(5.0)),
        status("d2", None),
    ]
    found = evidence(devices=devices)
    assert (found.drift.devices, found.drift.score) == (1, 4.0)
    assert evidence(None, devices=devices).drift.devices == 0


def test_a_run_that_left_too_little_is_an_error() -> None:
    objects = MemoryObjects()
    with pytest.raises(ObjectMissing):
        collect(package(), "x/2", objects, lambda _: [])
    leave(objects, comparison())
    for key in [key for key in objects.data if "/rounds/" in key]:
        del objects.data[key]
    with pytest.raises(ObjectMissing, match="left no round"):
        collect(package(), "x/2", objects, lambda _: [])


def test_evidence_that_is_missing_or_damaged_is_none() -> None:
    objects = MemoryObjects()
    assert read_evidence(objects, "run-1") is None
    objects.put(model_key("run-1", EVIDENCE), b"{")
    assert read_evidence(objects, "run-1") is None
    for garbage in (b"\xff", b'{"lineage": ' + b"[" * 100_000):
        objects.put(model_key("run-1", EVIDENCE), garbage)
        assert read_evidence(objects, "run-1") is None
