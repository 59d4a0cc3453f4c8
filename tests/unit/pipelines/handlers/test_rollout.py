"""The rollout function takes the steps that are due, and waits longer as a rollout ages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.handlers import link, promote, rollout


def state(name: str, waves: int = 0, **facts: Any) -> Any:
    given = {
        "fleet": "f",
        "number": 1,
        "model_version": "x/1",
        "switched": 0,
        "failures": {},
        "waiting": 0,
        "why": "",
        "started_at": 0.0,
    }
    return SimpleNamespace(state=name, waves=[None] * waves, **{**given, **facts})


class Conductor:
    """Goes through given states, and stays in the last."""

    def __init__(self, *states: Any) -> None:
        self.states = list(states)
        self.calls = 0

    def advance(self, fleet: str, number: int, now: float) -> Any:
        self.calls += 1
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]


def test_steps_are_taken_until_one_changes_nothing() -> None:
    conductor: Any = Conductor(state("Canary"), state("Waves", 1), state("Waves", 2))
    found = rollout.advance(conductor, "f", 1, lambda: 0.0)
    assert (found.state, len(found.waves), conductor.calls) == ("Waves", 2, 4)


def test_one_call_takes_no_more_steps_than_it_may() -> None:
    conductor: Any = Conductor(*(state("Waves", n) for n in range(99)))
    rollout.advance(conductor, "f", 1, lambda: 0.0)
    assert conductor.calls == rollout.STEPS_AT_ONCE + 1


@pytest.mark.parametrize(("age", "seconds"), [(0, 1), (500, 10), (86_400, 120)])
def test_waits_grow_with_the_rollouts_age(age: float, seconds: int) -> None:
    assert rollout.wait_of(state("Waves"), age) == seconds


def registry(**parts: Any) -> Any:
    return SimpleNamespace(
        rollouts=SimpleNamespace(begin_next=parts.setdefault("next", []).append),
        store=SimpleNamespace(
            fleets=lambda: [SimpleNamespace(fleet="f"), SimpleNamespace(fleet="g")]
        ),
        stale_devices=SimpleNamespace(
            withdraw_expired=parts.setdefault("withdrawn", []).append,
            update=lambda fleet: [f"job-{fleet}"],
        ),
        conductor=parts.get("conductor"),
    )


def test_a_rollout_that_is_over_begins_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    both = registry(conductor=Conductor(state("Succeeded")), next=begun)
    monkeypatch.setattr(rollout, "registry", lambda: both)
    assert rollout.handler({"fleet": "f", "number": 1}, None)["over"] is True
    assert begun == ["f"]


def test_the_schedule_updates_the_stale_devices_of_every_fleet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rollout, "registry", registry)
    assert rollout.handler({}, None) == {"jobs": ["job-f", "job-g"]}


def test_linking_gives_evidence_and_returns_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, str]] = []
    linking = SimpleNamespace(
        link=lambda package: "7", give_evidence=lambda *both: given.append(both)
    )
    signed: list[tuple[str, str]] = []
    signer = SimpleNamespace(give_record=lambda *both: signed.append(both))
    both = SimpleNamespace(
        linking=lambda: linking,
        sagemaker=SimpleNamespace(get=str.upper),
        record_signer=lambda: signer,
    )
    monkeypatch.setattr(link, "registry", lambda: both)
    assert link.handler({"model_package_arn": "arn"}, None) == {"model_version": "7"}
    assert given == signed == [("ARN", "7")]
    assert link.handler({"model_package_arn": "arn", "sign_only": True}, None)
    assert (len(given), len(signed)) == (1, 2)


def test_an_approval_of_an_unknown_package_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = SimpleNamespace(get=lambda arn: SimpleNamespace(metadata={}))
    both = SimpleNamespace(
        mlflow=SimpleNamespace(of_package=lambda *_: None), rollouts=None, sagemaker=unknown
    )
    monkeypatch.setattr(promote, "registry", lambda: both)
    detail = {
        "ModelPackageArn": "arn",
        "ModelPackageGroupName": "x",
        "ModelApprovalStatus": "Approved",
    }
    assert promote.handler({"detail": detail}, None) == {"promoted": False}
