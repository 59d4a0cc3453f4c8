"""Discovery starts a run, waits, or gives up."""

from __future__ import annotations

from typing import Any

import pytest

from edge.protocol.messages import Heartbeat
from fl_runtime.run.spec import RunSpec
from pipelines.handlers.discover import discover, members


def spec(**changes: Any) -> RunSpec:
    return RunSpec(
        **{
            "run": "run-1",
            "fleet": "f",
            "app": "a" * 64,
            "app_name": "x",
            "num_rounds": 1,
            "min_devices": 2,
            "deadline_seconds": 100.0,
            **changes,
        }
    )


def test_discovery_starts_waits_or_gives_up() -> None:
    assert discover(spec(), ["a", "b", "c"], 1.0).enough
    assert discover(spec(devices_per_proxy=2), ["a", "b", "c"], 1.0).cohorts == ["c0000", "c0001"]
    assert discover(spec(devices_per_proxy=0), ["a", "b"], 1.0).cohorts == []
    assert discover(spec(max_devices=2), ["a", "b", "c"], 1.0).count == 2
    waiting = discover(spec(), ["a"], 50.0)
    assert (waiting.enough, waiting.expired) == (False, False)
    assert discover(spec(), ["a"], 100.0).expired
    assert "1 of the 2 devices" in discover(spec(), ["a"], 100.0).reason


def test_a_run_that_gives_up_says_why_devices_could_not_take_part() -> None:
    old = {"d7": "its agent takes orders of protocol 1", "d8": "the same"}
    reason = discover(spec(), ["a"], 100.0, old).reason
    assert reason.endswith(
        " 2 online could not take part; d7: its agent takes orders of protocol 1."
    )


@pytest.mark.parametrize("deadline", [10.0, 3600.0, 30 * 86_400.0])
def test_a_wait_never_fills_the_history_of_the_state_machine(deadline: float) -> None:
    now, looks = 0.0, 0
    while not (found := discover(spec(deadline_seconds=deadline), [], now)).expired:
        now += found.wait_seconds
        looks += 1
    assert looks * 10 < 25_000


def test_only_things_of_the_fleet_take_part() -> None:
    beats = {name: Heartbeat(state="idle") for name in ("a", "b", "stranger")}
    assert list(members(beats, {"a", "b", "c"})) == ["a", "b"]
