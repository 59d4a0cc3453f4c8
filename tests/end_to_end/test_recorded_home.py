"""A home that version 0.4 made opens: what is stored keeps its names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import asked, mledgeops
from support.recorded_home import FIRST, SECOND, restore


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("recorded")
    restore(home)
    return home


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Another copy, in which the second run went on: that enrolled the devices anew, whose keys
    are not in the recording.
    """
    home = tmp_path_factory.mktemp("resumed")
    restore(home)
    more = mledgeops("run", "--resume", SECOND, "--rounds", "5", "--json", home=home)
    return home, json.loads(more.stdout)


def test_its_runs_are_listed_and_shown_without_a_cloud(recorded: Path) -> None:
    runs = asked("runs", home=recorded)["runs"]
    assert [(run["run_id"], run["status"]) for run in runs] == [
        (SECOND, "Succeeded"),
        (FIRST, "Succeeded"),
    ]
    rounds = asked("show", FIRST, home=recorded)["rounds"]
    assert [round(record["evaluate.accuracy"], 4) for record in rounds] == [0.8583, 0.8611]
    models = asked("models", home=recorded)["models"]
    assert [(m["version"], m["approval"], m["champion"]) for m in models] == [
        ("2", "PendingManualApproval", False),
        ("1", "Approved", True),
    ]


def test_its_registry_is_whole(recorded: Path) -> None:
    """One cloud for all commands, as a user would keep one up."""
    mledgeops("local", "up", home=recorded)
    try:
        chain = asked("trace", "digits/1", home=recorded)
        (version,) = chain["versions"]
        assert chain["run_id"] == FIRST
        assert [len(record["updates"]) for record in chain["rounds"]] == [4, 4]
        assert [d["what"] for d in version["decisions"]] == ["approve", "rollout", "rollout-ended"]
        assert [r["state"] for r in version["rollouts"]] == ["Succeeded"]
        assert asked("audit", home=recorded)["violations"] == []
        # 0.4 signed no records: both versions get one, since everything about them agrees.
        done = asked("reconcile", home=recorded)
        assert ([item["act"] for item in done["repairs"]], done["failed"]) == (["sign"] * 2, [])
        assert asked("reconcile", "--dry-run", home=recorded)["repairs"] == []
        fleet = asked("fleet", home=recorded)["devices"]
        assert [d["model_version"] for d in fleet] == ["digits/1"] * 2
    finally:
        mledgeops("local", "down", home=recorded)


def test_a_run_of_it_goes_on_where_it_ended(resumed: tuple[Path, dict]) -> None:
    home, report = resumed
    assert report["status"] == "Succeeded"
    before = asked("show", SECOND, home=home)["rounds"]
    assert [r["evaluate"]["accuracy"] for r in report["rounds"]][:4] == [
        record["evaluate.accuracy"] for record in before
    ]
    assert len(report["rounds"]) == 5


def test_its_pending_version_is_approved_and_reaches_the_devices(
    resumed: tuple[Path, dict],
) -> None:
    done = mledgeops("approve", "digits/2", "--reason", "better", "--json", home=resumed[0])
    approved = json.loads(done.stdout)
    assert (approved["approval"], approved["champion"]) == ("Approved", True)
    assert (approved["rollout"]["state"], approved["rollout"]["switched"]) == ("Succeeded", 2)
