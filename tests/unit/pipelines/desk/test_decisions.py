"""Deciding on a version: nothing is changed when a precheck fails or the reason is empty."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.desk.decisions import decide_on, devices_up, follow
from pipelines.errors import UsageError
from registry.evidence.prechecks import Check
from registry.model_version import PENDING, Version
from registry.rollout.model import FleetRecord

CLOUD: Any = SimpleNamespace(deployment=None)
VERSION = Version(
    name="digits",
    version="1",
    run="run-1",
    mlflow_run_id="m",
    model_package_arn="arn:package/digits/1",
    approval=PENDING,
    score=0.5,
    model_digest="d",
    champion=False,
    created_at=0.0,
)


def registry(*, passes: bool) -> Any:
    check = Check(name="drift", passed=passes, message="inputs have moved")
    return SimpleNamespace(
        mlflow=SimpleNamespace(versions=lambda *_: [VERSION]),
        candidates=SimpleNamespace(
            of=lambda _: SimpleNamespace(fleet="digits"), checks=lambda _: [check]
        ),
        policy=lambda: None,
        store=SimpleNamespace(current=lambda fleet: FleetRecord(fleet=fleet)),
    )


def test_a_failed_precheck_stops_an_approval_before_anything_is_changed() -> None:
    with pytest.raises(UsageError, match="Nothing was changed; --override"):
        decide_on(CLOUD, None, registry(passes=False), "digits/1", "Approved", "good")


def test_a_decision_needs_a_reason() -> None:
    with pytest.raises(UsageError, match="The reason is empty"):
        decide_on(CLOUD, None, registry(passes=True), "digits/1", "Approved", "  ")


def test_on_aws_devices_run_by_themselves_and_rollouts_are_not_waited_for() -> None:
    with devices_up(CLOUD, None, "digits"):
        pass
    rollout: Any = SimpleNamespace(fleet="digits", number=1)
    assert follow(CLOUD, None, rollout) is rollout
    assert follow(CLOUD, None, None) is None
