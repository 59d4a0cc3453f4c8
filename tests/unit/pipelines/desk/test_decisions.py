"""Deciding on a version: nothing is changed when a precheck fails or the reason is empty."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fakes.trail import MemoryEntries

from edge.protocol.messages import ORDER_VERSION, Heartbeat
from fl_runtime.run.devices import DeviceStatus
from pipelines.desk.decisions import (
    decide_on,
    devices_up,
    follow,
    override_checks,
    signed_candidate,
)
from pipelines.errors import UsageError
from registry.audit import AuditTrail
from registry.errors import RegistryError
from registry.evidence.prechecks import Check
from registry.model_version import PENDING, Version
from registry.policy import Policy, PrecheckPolicy
from registry.provenance import ProvenanceMissing
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


class Rollouts:
    """A version that has no record until it is signed."""

    def __init__(self, signed: list[str]) -> None:
        self._signed = signed

    def candidate(self, version: Version) -> Any:
        if version.model_package_arn not in self._signed:
            raise ProvenanceMissing("it has no signed record")
        return SimpleNamespace(fleet="digits")


def registry(*, passes: bool) -> Any:
    signed: list[str] = []
    check = Check(name="drift", passed=passes, message="inputs have moved")
    return SimpleNamespace(
        mlflow=SimpleNamespace(versions=lambda *_: [VERSION]),
        rollouts=Rollouts(signed),
        candidates=SimpleNamespace(checks=lambda _: [check], verify=lambda _: None),
        link_function=SimpleNamespace(sign=signed.append),
        audit=AuditTrail(MemoryEntries()),
        caller=lambda: "arn:aws:iam::1:user/ann",
        policy=lambda: Policy(prechecks=PrecheckPolicy(override_by=("*/ann",))),
        store=SimpleNamespace(current=lambda fleet: FleetRecord(fleet=fleet)),
    )


def test_a_failed_precheck_stops_an_approval_before_anything_is_changed() -> None:
    with pytest.raises(UsageError, match="Nothing was changed; --override"):
        decide_on(CLOUD, None, registry(passes=False), "digits/1", "Approved", "good")


def test_an_approval_that_no_agent_could_follow_is_refused_before_anything_is_changed() -> None:
    def beat(device: str, orders: int) -> DeviceStatus:
        heartbeat = Heartbeat(state="idle", orders=orders)
        return DeviceStatus(fleet="digits", device=device, last_seen=9.0, heartbeat=heartbeat)

    def approve(*devices: DeviceStatus) -> None:
        both = registry(passes=True)
        both.devices = SimpleNamespace(fleet=lambda fleet: devices)
        both.sagemaker = SimpleNamespace(get=lambda arn: SimpleNamespace(approval="Approved"))
        decide_on(CLOUD, None, both, "digits/1", "Approved", "good")

    old = beat("d1", ORDER_VERSION - 1)
    with pytest.raises(UsageError, match=r"d1: its agent takes orders .*: update the agent\. Noth"):
        approve(old)
    for others in ((), (old, beat("d2", ORDER_VERSION))):
        with pytest.raises(RegistryError, match="Approved already"):
            approve(*others)


def test_a_version_that_an_older_release_linked_gets_its_record_first() -> None:
    both = registry(passes=True)
    assert signed_candidate(both, VERSION).fleet == "digits"
    assert both.rollouts.candidate(VERSION).fleet == "digits", "the link function signed it"


def test_an_override_is_recorded_before_the_approval_by_whom_the_policy_allows() -> None:
    both = registry(passes=False)
    override_checks(both, VERSION, "good", "1 of 1 prechecks fail")
    (entry,) = both.audit.entries()
    assert (entry.what, entry.who, entry.subject) == ("override", both.caller(), "digits/1")
    both.caller = lambda: "arn:aws:iam::1:user/bob"
    with pytest.raises(RegistryError, match="does not allow"):
        override_checks(both, VERSION, "good", "1 of 1 prechecks fail")


def test_a_decision_needs_a_reason() -> None:
    with pytest.raises(UsageError, match="The reason is empty"):
        decide_on(CLOUD, None, registry(passes=True), "digits/1", "Approved", "  ")


def test_on_aws_devices_run_by_themselves_and_rollouts_are_not_waited_for() -> None:
    with devices_up(CLOUD, None, "digits"):
        pass
    rollout: Any = SimpleNamespace(fleet="digits", number=1)
    assert follow(CLOUD, None, rollout) is rollout
    assert follow(CLOUD, None, None) is None
