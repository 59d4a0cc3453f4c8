"""The verdict on a wave's answers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fakes.rollout_drive import POLICY, Drive
from fakes.rollouts import Plant

from registry.rollout.judging import failure_text, lost_canary, verdict, with_answers
from registry.rollout.model import Answer, DeviceState, Rollout, Wave

WAVE = Wave(devices=["a"], jobs=["j"], started_at=0.0)


def rollout(**changes: Any) -> Rollout:
    begun = Drive(Plant(1)).begin(1, policy=changes.pop("policy", POLICY))
    return msgspec.structs.replace(begun, waves=[WAVE], **changes)


def failures(count: int) -> dict[str, str]:
    return {f"d{n}": "worse" for n in range(count)}


def test_answers_are_counted_and_reasons_kept() -> None:
    found = with_answers(
        rollout(),
        {
            "a": Answer("SUCCEEDED"),
            "b": Answer("IN_PROGRESS"),
            "c": Answer("FAILED", "worse"),
            "d": Answer("TIMED_OUT"),
            "e": Answer("CANCELED"),
        },
    )
    assert (found.switched, found.waiting, found.answered) == (1, 1, 3)
    assert found.failures == {"c": "worse", "d": "TIMED_OUT"}


@pytest.mark.parametrize(
    ("switched", "failed", "waiting", "now", "expected"),
    [
        (9, 1, 0, 1.0, "proceed"),
        (8, 2, 0, 1.0, "roll back"),  # 80 % switched, 90 % must
        (0, 1, 9, 1.0, "wait"),  # the others may outweigh it
        (0, 3, 7, 1.0, "roll back"),  # they cannot any more
        (9, 0, 1, 1.0, "wait"),
        (9, 0, 1, 100.0, "proceed"),  # the wave has waited long enough
        (0, 0, 10, 100.0, "roll back"),  # a canary that says nothing
        (0, 0, 10, 99.9, "wait"),
        (8, 1, 1, 100.0, "roll back"),  # 89 % of those that answered
        (8, 2, 5, 1.0, "wait"),  # exactly the share that may fail
        (0, 2, 8, 1.0, "wait"),
        (1, 0, 0, 1.0, "proceed"),
    ],
)
def test_the_verdict(switched: int, failed: int, waiting: int, now: float, expected: str) -> None:
    counted = rollout(switched=switched, failures=failures(failed), waiting=waiting)
    assert verdict(counted, now) == expected


def test_a_wave_waits_from_its_own_start() -> None:
    late = Wave(devices=["a"], jobs=["j"], started_at=500.0)
    counted = msgspec.structs.replace(rollout(switched=9, waiting=1), waves=[WAVE, late])
    assert [verdict(counted, now) for now in (599.9, 600.0)] == ["wait", "proceed"]


def test_a_wave_after_the_canary_that_says_nothing_does_not_stop_the_rollout() -> None:
    assert verdict(rollout(state="Waves", waiting=5), 100.0) == "proceed"


def test_why_names_a_device_and_its_reason() -> None:
    counted = rollout(switched=1, failures={"b": "disk-full", "a": "worse"})
    assert failure_text(counted) == "2 of 3 devices did not take it; a: worse"
    assert failure_text(rollout()) == "no device of the canary answered within 100 s"


def test_a_canary_is_lost_when_devices_vanish_or_drop_the_model() -> None:
    policy = msgspec.structs.replace(POLICY, soak_seconds=50.0)
    soaking, model = rollout(policy=policy), "wind/1"
    good = {"a": DeviceState(model, online=True), "b": DeviceState(model, online=True)}
    old = {**good, "b": DeviceState("wind/0", online=True)}
    away = {**good, "b": DeviceState(model, online=False)}
    assert not lost_canary(soaking, ["a", "b"], good, soak_over=True)
    assert not lost_canary(soaking, ["a", "b"], old, soak_over=False), "an older heartbeat"
    for devices in (old, away, {"a": good["a"]}):
        assert "1 of 2 canary devices" in lost_canary(soaking, ["a", "b"], devices, soak_over=True)
    assert lost_canary(rollout(), ["a", "b"], away, soak_over=True) == "", "no soak time"


def test_a_canary_may_lose_the_share_of_devices_that_may_fail() -> None:
    policy = msgspec.structs.replace(POLICY, soak_seconds=50.0, abort=0.5)
    soaking, there = rollout(policy=policy), {"a": DeviceState("wind/1", online=True)}
    assert lost_canary(soaking, ["a", "b"], there, soak_over=True) == ""
    assert "2 of 3" in lost_canary(soaking, ["a", "b", "c"], there, soak_over=False)
