"""Two people who decide at once: the trail has an order, and a rejection is final."""

from __future__ import annotations

import pytest
from fakes.trail import MemoryEntries
from msgspec.structs import replace

from registry.approval import decide, find
from registry.audit import AuditTrail
from registry.errors import RegistryError
from registry.model_version import Package, Version

ANN = "arn:aws:iam::1:user/ann"


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
    trail = AuditTrail(MemoryEntries(), lambda entry, _: both.meanwhile("after saying so"))
    both = Registries(trail, "reject", at)
    try:
        decide(
            both,
            both,
            trail,
            version(),
            "Approved",
            "good",
            who=ANN,
            clock=iter(range(1000)).__next__,
            sleep=lambda _: None,
        )
    except RegistryError as error:
        assert "a rejection is final" in str(error)
    assert both.approval == "Rejected"
    assert trail.verify() == []


def test_two_that_agree_do_no_harm() -> None:
    trail = AuditTrail(MemoryEntries())
    both = Registries(trail, "approve", "after reading")
    decide(both, both, trail, version(), "Approved", "good", who=ANN, sleep=lambda _: None)
    assert both.approval == "Approved"
    with pytest.raises(RegistryError, match="Approved already"):
        decide(both, both, trail, version(), "Approved", "again", who=ANN, sleep=lambda _: None)
    decide(both, both, trail, version(), "Rejected", "no", who=ANN, sleep=lambda _: None)
    with pytest.raises(RegistryError, match="a rejection is final"):
        decide(both, both, trail, version(), "Approved", "after all", who=ANN, sleep=lambda _: None)


def test_mlflow_that_does_not_follow_is_said_after_a_minute() -> None:
    trail = AuditTrail(MemoryEntries())
    both = Registries(trail)
    both.versions = lambda name: [version()]  # type: ignore[method-assign]
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with pytest.raises(RegistryError, match="MLflow did not follow within 60 s"):
        decide(
            both,
            both,
            trail,
            version(),
            "Approved",
            "good",
            who=ANN,
            clock=lambda: now[0],
            sleep=sleep,
        )
    assert both.approval == "Approved"


def test_a_version_is_found_by_number_name_or_package() -> None:
    other = replace(version(), name="sun", model_package_arn="arn:2")
    assert find([version()], "1") == find([version()], "wind/1") == find([version()], "arn:1")
    assert find([version(), other], "sun/1") == other
    for versions, wanted, message in (
        ([], "1", "No model is registered yet"),
        ([version()], "9", "There is no model version '9'; there are wind/1"),
        ([version(), other], "1", "give wind/1 or sun/1"),
    ):
        with pytest.raises(RegistryError, match=message):
            find(versions, wanted)


@pytest.mark.parametrize("approval", ["Approved", "Rejected"])
def test_what_was_rejected_in_studio_stays_rejected(approval: str) -> None:
    """SageMaker says so; the trail holds no entry of it."""
    trail = AuditTrail(MemoryEntries())
    both = Registries(trail)
    both.approval = "Rejected"
    with pytest.raises(RegistryError, match=r"is Rejected already|a rejection is final"):
        decide(both, both, trail, version(), approval, "good", who=ANN, sleep=lambda _: None)
    assert both.approval == "Rejected"
    assert list(trail.entries()) == []
