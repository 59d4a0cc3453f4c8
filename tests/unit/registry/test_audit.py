"""The audit trail: nobody changes, removes or cuts off what was decided without being found out."""

from __future__ import annotations

import msgspec
import pytest
from fakes.trail import MemoryEntries
from hypothesis import given
from hypothesis import strategies as st

from registry.approval import decide
from registry.audit import AuditEntry, AuditTrail
from registry.errors import RegistryError
from registry.model_version import Package, Version


def filled(count: int) -> tuple[MemoryEntries, AuditTrail, str]:
    memory = MemoryEntries()
    trail, head = AuditTrail(memory), ""
    for number in range(count):
        head = trail.append(
            at=float(number),
            who="ann",
            what="approve",
            subject=f"wind/{number}",
            why="good",
            score=number,
        )
    return memory, trail, head


def test_entries_are_chained_and_whole() -> None:
    _, trail, head = filled(5)
    assert trail.verify([head]) == []
    assert [entry.number for entry in trail.entries()] == [1, 2, 3, 4, 5]
    assert next(iter(trail.entries())).details == {"score": 0}


@given(
    st.integers(0, 5), st.integers(1, 6), st.sampled_from(["change", "remove", "swap", "garbage"])
)
def test_tampering_is_found(at: int, count: int, how: str) -> None:
    memory, trail, head = filled(count)
    key = sorted(memory.data)[at % count]
    if how == "change":
        memory.data[key] = msgspec.json.encode(
            msgspec.structs.replace(
                msgspec.json.decode(memory.data[key], type=AuditEntry), who="eve"
            )
        )
    elif how == "remove":
        del memory.data[key]
    elif how == "garbage":
        memory.data[key] = b"{"
    elif count > 1:
        other = next(k for k in memory.data if k != key)
        memory.data[key], memory.data[other] = memory.data[other], memory.data[key]
    else:
        return
    assert trail.verify([head])


def test_two_that_append_at_once_come_one_after_the_other() -> None:
    memory, trail, _ = filled(2)
    rival = AuditEntry(
        number=3,
        at=9.0,
        who="bob",
        what="reject",
        subject="wind/9",
        why="",
        before=trail.append(at=9.0, who="x", what="y", subject="z", why=""),
    )
    memory.rival = [msgspec.json.encode(msgspec.structs.replace(rival, number=4))]
    head = trail.append(at=10.0, who="ann", what="approve", subject="wind/1", why="")
    assert [entry.who for entry in trail.entries()] == ["ann", "ann", "x", "bob", "ann"]
    assert trail.verify([head]) == []


class Registries:
    """Both sides of one version, and somebody else who decides at a chosen moment."""

    def __init__(self, trail: AuditTrail, rival: str = "", at: str = "") -> None:
        self.trail, self.rival, self.at, self.approval = trail, rival, at, "PendingManualApproval"

    def meanwhile(self, moment: str) -> None:
        if self.at == moment and self.rival:
            rival, self.rival = self.rival, ""
            self.trail.append(at=0.0, who="bob", what=rival, subject="wind/1", why="bob's reason")
            self.approval = "Rejected" if rival == "reject" else "Approved"

    def get(self, arn: str) -> Package:
        found = Package(
            arn=arn, group="wind", version=1, approval=self.approval, metadata={}, model_data=""
        )
        self.meanwhile("after reading")
        return found

    def set_approval(self, arn: str, approval: str, reason: str) -> None:
        self.meanwhile("before writing")
        self.approval = approval
        self.meanwhile("after writing")

    def set_tags(self, name: str, version: str, tags: dict) -> None:
        self.meanwhile("after saying so")

    def versions(self, name: str) -> list[Version]:
        return [version(self.approval)]


def version(approval: str = "PendingManualApproval") -> Version:
    return Version(
        name="wind",
        version="1",
        run="run-1",
        mlflow_run_id="m",
        model_package_arn="arn:1",
        approval=approval,
        score=1.0,
        model_digest="d",
        champion=False,
        created_at=0.0,
    )


@pytest.mark.parametrize(
    "at", ["after reading", "after saying so", "before writing", "after writing"]
)
def test_of_two_that_decide_at_once_a_rejection_stands(at: str) -> None:
    trail = AuditTrail(MemoryEntries())
    both = Registries(trail, "reject", at)
    try:
        decide(
            both,
            both,
            trail,
            version(),
            "Approved",
            "good",
            clock=iter(range(1000)).__next__,
            sleep=lambda _: None,
        )
    except RegistryError as error:
        assert "a rejection is final" in str(error) or "did not follow" in str(error)
    assert both.approval == "Rejected"
    assert trail.verify() == []


def test_two_that_agree_do_no_harm() -> None:
    trail = AuditTrail(MemoryEntries())
    both = Registries(trail, "approve", "after reading")
    decide(both, both, trail, version(), "Approved", "good", sleep=lambda _: None)
    assert both.approval == "Approved"
    with pytest.raises(RegistryError, match="Approved already"):
        decide(both, both, trail, version(), "Approved", "again", sleep=lambda _: None)
    decide(both, both, trail, version(), "Rejected", "no", sleep=lambda _: None)
    with pytest.raises(RegistryError, match="a rejection is final"):
        decide(both, both, trail, version(), "Approved", "after all", sleep=lambda _: None)
