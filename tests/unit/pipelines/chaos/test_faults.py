"""Faults: a seed always has the same, each kind comes up, and each undoes what it did."""

from __future__ import annotations

import random
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fl_runtime.run.state import RunState
from pipelines.chaos.faults import processes, replay, services
from pipelines.chaos.faults.catalogue import (
    ENVIRONMENT,
    FAULTS,
    POISON,
    attack_of,
    faults_of,
)
from pipelines.chaos.faults.fault import Fault
from pipelines.chaos.injected import ControlFile, InjectedError, Injector, RecordedCall
from pipelines.chaos.invariants import Attack
from pipelines.chaos.links import GOOD, Link, LinkCondition
from pipelines.chaos.stage import Stage

BODY = b'{"order":{"upload_url":"http://127.0.0.1:9/u"}}'


@dataclass
class Devices:
    """What faults do to devices."""

    done: list[tuple] = field(default_factory=list)
    disk: Any = None

    def kill(self, index: int) -> None:
        self.done.append(("kill", index))

    def stop(self, index: int) -> None:
        self.done.append(("stop", index))

    def start(self, index: int, skew: float = 0.0) -> None:
        self.done.append(("start", index, skew))

    def behave(self, name: str) -> None:
        self.done.append(("behave", name))

    def workers(self, _: int) -> list:
        return []


class Runs:
    """A runs table with one run."""

    def __init__(self, state: str = "Running", server: str = "") -> None:
        self.state = RunState(run="run-1", state=state, server=server)

    def get(self, _: str) -> RunState:
        return self.state


class World:
    def __init__(self, folder: Path) -> None:
        self.devices, self.broker, self.s3 = Devices(), Link(), Link()
        self.errors = ControlFile(folder / "chaos.json", 1)
        self.slowness = types.SimpleNamespace(now=lambda: 1.0)

    def await_fleet(self, devices: int) -> None:
        self.devices.done.append(("fleet", devices))

    def tasks(self, *_: Any) -> list:
        return []


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(World(tmp_path), "run-1", "arn", Runs(), random.Random(1))


def test_a_seed_always_has_the_same_faults() -> None:
    for seed in range(200):
        assert faults_of(seed, []) == faults_of(seed, [])


def test_each_kind_comes_in_turn() -> None:
    seen = {fault.kind for seed in range(200) for fault in faults_of(seed, [])}
    assert seen == set(FAULTS)
    assert len(FAULTS) == len(ENVIRONMENT) + len(POISON)


def test_a_fault_that_must_be_alone_has_no_other_beside_it() -> None:
    for seed in range(200):
        chosen = faults_of(seed, [])
        assert len(chosen) == 1 or not any(fault.alone for fault in chosen)


def test_the_users_choice_replaces_the_seeds() -> None:
    assert [fault.kind for fault in faults_of(7, ["s3-gone", "hostile-nan"])] == [
        "s3-gone",
        "hostile-nan",
    ]


def test_the_hostile_device_behaves_as_the_fault_says() -> None:
    assert attack_of([FAULTS["s3-gone"], FAULTS["hostile-nan"]]) == Attack("nan", (4,))
    assert attack_of([FAULTS["s3-gone"]]) == Attack("honest", ())
    assert attack_of([FAULTS["sybils-huge"]]) == Attack("huge", (4, 6, 7))
    assert all(isinstance(fault, Fault) for fault in FAULTS.values())


def test_a_hostile_fault_is_undone(stage: Stage) -> None:
    undo = FAULTS["hostile-nan"].before(stage.world, stage.rng)
    undo()
    assert stage.world.devices.done == [("behave", "nan"), ("behave", "honest")]


def test_a_skewed_clock_is_undone(stage: Stage) -> None:
    undo = processes.skew_clock(stage.world, random.Random(1))
    undo()
    stopped, started, again = stage.world.devices.done
    assert abs(started[2]) in (processes.HOUR, processes.YEAR)
    assert stopped == again


def test_a_rebooted_device_comes_back(stage: Stage) -> None:
    processes.reboot(stage)
    assert [action[0] for action in stage.world.devices.done] == ["kill", "start"]
    assert "reboot" in stage.notes[0]


def test_a_power_cut_without_a_disk_of_its_own_says_what_it_left_out(stage: Stage) -> None:
    processes.cut_power(stage)
    kinds = [action[0] for action in stage.world.devices.done]
    assert kinds == ["kill", "start"] * len(stage.notes)
    assert all("can be mounted" in note for note in stage.notes)


def test_a_disk_that_cannot_be_cut_fails_the_seed(stage: Stage) -> None:
    stage.world.devices.disk = types.SimpleNamespace(cut_power=lambda: "it is busy")
    with pytest.raises(AssertionError, match="it is busy"):
        processes.cut_power(stage)


def test_sybils_come_into_the_fleet_before_the_run_and_are_told_to_stop_after_it(
    stage: Stage,
) -> None:
    undo = FAULTS["sybils-huge"].before(stage.world, stage.rng)
    assert stage.world.devices.done == [
        *(("start", index, 0.0) for index in (5, 6, 7)),
        ("fleet", 8),
        ("behave", "huge"),
    ]
    undo()
    assert stage.world.devices.done[-1] == ("behave", "honest")


def test_commands_of_a_run_come_again_as_they_were_and_changed(stage: Stage) -> None:
    sent = RecordedCall("http://x/topics/fl%2Fchaos%2Fchaos-0001%2Fcommand?qos=1", BODY)
    seen = {replay.spoiled(sent, random.Random(seed)) for seed in range(40)}
    assert ("fl/chaos/chaos-0001/command", BODY) in seen
    assert ("fl/chaos/chaos-0002/command", BODY) in seen
    assert ("fl/chaos/chaos-0001/command", BODY.replace(b".1", b".2")) in seen
    assert len({body for _, body in seen}) > 3, "and some with a flipped bit"


def test_recorded_commands_are_those_that_went_out_while_the_fault_lasts(stage: Stage) -> None:
    undo = FAULTS["commands-replayed"].before(stage.world, stage.rng)
    injector = Injector(stage.world.errors.file, random.Random(1))
    request = types.SimpleNamespace(url="http://x/topics/t", body=BODY)
    assert injector(request, "before-send.iot-data-plane.Publish") is None
    undo()
    injector(request, "before-send.iot-data-plane.Publish")
    assert stage.world.errors.recorded() == [RecordedCall("http://x/topics/t", BODY)]


def test_a_link_is_good_again_afterwards(stage: Stage) -> None:
    services.degrade("s3", LinkCondition(delay=9.0), "S3 slow", 1, 2)(stage)
    assert stage.world.s3.condition == GOOD
    assert stage.notes[0].startswith("S3 slow for 1.")


def test_injected_errors_end(stage: Stage) -> None:
    services.inject(InjectedError(service="s3", share=0.5, code="SlowDown"))(stage)
    assert stage.notes[0].startswith("s3 SlowDown (50%)")
    assert stage.world.errors._rules == []


def test_a_task_that_never_starts_is_not_killed(stage: Stage) -> None:
    stage.table.state = RunState(run="run-1", state="Succeeded")
    processes.kill_task("fl_runtime.server")(stage)
    processes.pause(lambda s: s.task("fl_runtime.proxy"), "proxy", 3.0)(stage)
    assert stage.notes == []


def test_a_stage_knows_how_far_its_run_is(stage: Stage) -> None:
    assert not stage.has_server()
    assert not stage.has_ended()
    stage.table = Runs(server="host:1")
    assert stage.has_server()
    stage.table = Runs("Failed")
    assert stage.has_server()
    assert stage.has_ended()
    assert 1 <= stage.random_duration(1, 2) <= 2
    assert stage.honest_device() in range(4)
