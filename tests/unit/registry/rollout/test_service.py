"""Beginning rollouts, holding versions back, and writing down how rollouts end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from fakes.evidence import package
from fakes.registries import MemoryModels
from fakes.rollouts import MemoryStore, candidate
from fakes.trail import MemoryEntries
from msgspec.structs import replace

from registry.audit import AuditTrail
from registry.errors import RegistryError, RolloutBusy
from registry.evidence.prechecks import Check
from registry.identity import record_override
from registry.mlflow_registry import MlflowRegistry
from registry.model_version import APPROVAL_TAG, ROLLOUT_TAG, Version
from registry.policy import Policy, PrecheckPolicy
from registry.provenance import ProvenanceMismatch, ProvenanceMissing
from registry.rollout.claim import release
from registry.rollout.service import Outcomes, RolloutService, StepFunctions

ANN, BOB = "arn:aws:iam::1:user/ann", "arn:aws:iam::1:user/bob"


class Exists(Exception):
    pass


class Steps:
    """Step Functions: an execution's name is taken once."""

    exceptions = SimpleNamespace(ExecutionAlreadyExists=Exists)

    def __init__(self) -> None:
        self.started: dict[str, str] = {}

    def start_execution(self, stateMachineArn: str, name: str, input: str) -> None:
        if name in self.started:
            raise Exists
        self.started[name] = input


class Bench:
    def __init__(self, passed: bool = True) -> None:
        self.store, self.steps = MemoryStore(), Steps()
        self.mlflow = MlflowRegistry(MemoryModels())
        self.audit = AuditTrail(
            MemoryEntries(), lambda entry, head: self.mlflow.remember_head(entry.subject, head)
        )
        for number in (1, 2):
            self.mlflow.register(replace(package(), arn=f"arn:{number}", approval="Approved"))
        check = Check(name="better", passed=passed, message="it is worse")
        self.approval, self.approver, self.changed = "Approved", ANN, ""
        candidates: Any = SimpleNamespace(
            checks=lambda _: [check],
            of=self._candidate,
            approval=lambda _: self.approval,
            approver=lambda _: self.approver,
            verify=self._verify,
        )
        store: Any = self.store
        self.policy = Policy()
        self.service = RolloutService(
            store,
            candidates,
            self.audit,
            StepFunctions(client=self.steps, machine="arn:machine"),
            mlflow=lambda: self.mlflow,
            policy=lambda: self.policy,
            clock=lambda: 7.0,
        )
        self.outcomes = Outcomes(lambda: self.mlflow, self.audit, lambda: 7.0)

    def _verify(self, candidate: Any) -> None:
        if self.changed == candidate.model_version:
            raise ProvenanceMissing(f"{self.changed} has no signed record")

    def _candidate(self, version: Version) -> Any:
        if self.changed == version.model_version:
            raise ProvenanceMismatch(f"{self.changed} is not what was linked")
        return msgspec.structs.replace(
            candidate(int(version.version)), model_version=version.model_version
        )

    def version(self, number: str = "1") -> Version:
        found = self.mlflow.get("x", number)
        assert found is not None
        return found

    def said(self) -> list[str]:
        return [entry.what for entry in self.audit.entries()]


def test_a_rollout_is_claimed_recorded_and_handed_to_the_state_machine_once() -> None:
    bench = Bench()
    begun = bench.service.begin(bench.version(), by="ann", reason="better").rollout
    assert begun is not None
    bench.service.resume(begun)
    assert bench.steps.started == {"f-1": '{"fleet":"f","number":1}'}
    bench.steps.started.clear()
    bench.service.resume(begun)
    assert list(bench.steps.started) == ["f-1"], "one that has ended is started again"
    assert bench.said() == ["rollout"]


def test_failed_prechecks_hold_a_version_back_once_unless_somebody_overrides() -> None:
    bench = Bench(passed=False)
    for _ in range(2):
        with pytest.raises(RegistryError, match="x/1 is held back: 1 of 1 prechecks fail"):
            bench.service.begin(bench.version(), by="ann", reason="better")
    assert bench.said() == ["held"]
    assert bench.version().rollout_state == "Held"
    assert bench.service.begin(bench.version(), by="ann", reason="r", override=True).rollout
    forced = Bench(passed=False)
    assert forced.service.begin(forced.version(), by="ann", reason="r", forced=True).rollout


def test_a_version_waits_behind_the_rollout_under_way_and_then_goes() -> None:
    bench = Bench()
    first = bench.service.begin(bench.version(), by="ann", reason="r").rollout
    assert first is not None
    with pytest.raises(RolloutBusy):
        bench.service.begin(bench.version("2"), by="ann", reason="r", queue=False)
    queued = bench.service.begin(bench.version("2"), by="ann", reason="r")
    assert queued.rollout is None and "is under way" in queued.waits
    bench.service.begin_next("f")
    waiting = bench.store.current("f")
    assert (waiting.number, waiting.next) == (1, "x/2"), "the first has not ended"
    release(bench.store, msgspec.structs.replace(first, state="Succeeded"))
    bench.service.begin_next("f")
    current = bench.store.current("f")
    assert (current.under_way, current.next) == (2, "")


def test_a_version_that_waited_is_not_held_by_the_prechecks_that_were_overridden() -> None:
    bench = Bench(passed=False)
    first = bench.service.begin(bench.version(), by="ann", reason="r", override=True).rollout
    assert first is not None
    bench.service.begin(bench.version("2"), by="ann", reason="r", override=True)
    release(bench.store, msgspec.structs.replace(first, state="Succeeded"))
    bench.service.begin_next("f")
    assert bench.store.current("f").under_way == 2


def test_a_queued_version_that_was_rejected_meanwhile_does_not_go() -> None:
    bench = Bench()
    first = bench.service.begin(bench.version(), by="ann", reason="r").rollout
    assert first is not None
    bench.service.begin(bench.version("2"), by="ann", reason="r")
    bench.mlflow.set_tags("x", "2", {APPROVAL_TAG: "Rejected"})
    release(bench.store, msgspec.structs.replace(first, state="Succeeded"))
    bench.service.begin_next("f")
    assert bench.store.current("f").under_way == 0


def test_a_success_makes_the_champion_and_a_rollback_says_why() -> None:
    bench = Bench()
    rollout = bench.service.begin(bench.version(), by="ann", reason="r").rollout
    assert rollout is not None
    bench.outcomes.record(msgspec.structs.replace(rollout, state="RolledBack", why="worse"))
    assert not bench.version().champion
    assert bench.mlflow._client.items["x", "1"].tags[ROLLOUT_TAG] == "RolledBack: worse"
    assert list(bench.audit.entries())[-1].why == "RolledBack: worse"
    bench.outcomes.record(msgspec.structs.replace(rollout, state="Succeeded"))
    assert bench.version().champion
    assert list(bench.audit.entries())[-1].why == "Succeeded"
    assert bench.said() == ["rollout", "rollout-ended", "rollout-ended"]
    assert bench.audit.verify(bench.mlflow.audit_heads()) == []


@pytest.mark.parametrize("approval", ["Rejected", "Deleted"])
def test_a_version_that_was_rejected_or_deleted_is_unwanted(approval: str) -> None:
    bench = Bench()
    rollout = bench.service.begin(bench.version(), by="ann", reason="r").rollout
    assert rollout is not None
    assert bench.outcomes.unwanted(rollout) == ""
    bench.mlflow.set_tags("x", "1", {APPROVAL_TAG: approval})
    assert bench.outcomes.unwanted(rollout) == f"x/1 was {approval.lower()} while it was on its way"


def test_what_is_not_what_was_linked_is_refused_and_recorded_once() -> None:
    bench = Bench()
    bench.changed = "x/1"
    for _ in range(2):
        with pytest.raises(ProvenanceMismatch, match="not what was linked"):
            bench.service.begin(bench.version(), by=ANN, reason="r", forced=True)
    assert bench.said() == ["refused"]
    assert bench.steps.started == {}


def test_a_version_goes_only_where_the_way_back_can_be_signed() -> None:
    bench = Bench()
    first = bench.service.begin(bench.version(), by=ANN, reason="r").rollout
    assert first is not None
    release(bench.store, msgspec.structs.replace(first, state="Succeeded"))
    bench.changed = "x/1"
    with pytest.raises(ProvenanceMissing, match="Fleet f runs x/1, to which a rollback"):
        bench.service.begin(bench.version("2"), by=ANN, reason="r")
    forced = bench.service.begin(bench.version("2"), by=ANN, reason="r", forced=True).rollout
    assert forced is not None
    assert not forced.previous_verified


def test_a_rollout_remembers_that_its_way_back_was_verified() -> None:
    bench = Bench()
    first = bench.service.begin(bench.version(), by=ANN, reason="r").rollout
    assert first is not None
    assert not first.previous_verified, "there is none"
    release(bench.store, msgspec.structs.replace(first, state="Succeeded"))
    second = bench.service.begin(bench.version("2"), by=ANN, reason="r").rollout
    assert second is not None
    assert second.previous_verified


def test_sagemaker_says_what_is_approved_and_not_a_tag() -> None:
    bench = Bench()
    bench.approval = "PendingManualApproval"
    with pytest.raises(RegistryError, match="PendingManualApproval in SageMaker"):
        bench.service.begin(bench.version(), by=ANN, reason="r")


@pytest.mark.parametrize(
    ("who", "approver", "allowed", "goes"),
    [
        (ANN, ANN, (), True),
        (ANN, ANN, ("arn:aws:iam::1:user/a*",), True),
        (ANN, BOB, (), False),
        (ANN, "", (), False),
    ],
)
def test_only_who_has_recorded_the_override_approves_over_failed_prechecks(
    who: str, approver: str, allowed: tuple[str, ...], goes: bool
) -> None:
    bench = Bench(passed=False)
    bench.approver = approver
    bench.policy = Policy(prechecks=PrecheckPolicy(override_by=allowed))
    record_override(
        bench.audit, bench.policy.prechecks, bench.version(), who=who, why="r", wrong="w", at=1.0
    )
    if goes:
        assert bench.service.begin(bench.version(), by=approver, reason="r").rollout
        return
    with pytest.raises(RegistryError, match="held back"):
        bench.service.begin(bench.version(), by=approver, reason="(over the pre-checks)")


def test_an_edited_text_neither_holds_a_version_nor_hides_that_it_is_held() -> None:
    bench = Bench(passed=False)
    bench.mlflow.set_tags("x", "1", {ROLLOUT_TAG: "Held up by the weather"})
    with pytest.raises(RegistryError, match="held back"):
        bench.service.begin(bench.version(), by=ANN, reason="r")
    assert (bench.said(), bench.version().rollout_state) == (["held"], "Held")
