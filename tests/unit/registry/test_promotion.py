"""What follows an approval, and which version a rollback returns to."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.evidence import package
from fakes.registries import MemoryModels
from fakes.trail import MemoryEntries
from msgspec.structs import replace

from registry.audit import AuditTrail
from registry.errors import RegistryError
from registry.mlflow_registry import MlflowRegistry
from registry.model_version import Version
from registry.promotion import StateChange, promote, record_approval, rollback_target

ANN = "arn:aws:iam::1:user/ann"


def registry() -> MlflowRegistry:
    made = MlflowRegistry(MemoryModels())
    made.register(package())
    return made


def change(approval: str = "Approved", description: str = "ann: better") -> StateChange:
    return StateChange("arn:package", "x", approval, description)


def ann(arn: str) -> str:
    return {"arn:package": ANN}[arn]


def test_an_approval_is_mirrored_and_begins_the_rollout() -> None:
    mlflow, begun = registry(), []
    said = promote(change(), mlflow, ann, lambda *given: begun.append(given))
    assert said == {"promoted": True, "version": "1"}
    ((version, who, why),) = begun
    assert (version.model_version, who, why) == ("x/1", ANN, "better")
    assert mlflow.versions()[0].approval == mlflow.versions()[0].synced == "Approved"


@pytest.mark.parametrize(
    ("description", "why"),
    [
        ("bob: better (over the pre-checks)", "better (over the pre-checks)"),
        ("looks good", "looks good"),
    ],
)
def test_who_approved_is_whom_aws_names_and_not_who_the_description_says(
    description: str, why: str
) -> None:
    seen: list[Any] = []
    promote(change(description=description), registry(), ann, lambda _, *given: seen.append(given))
    assert seen == [(ANN, why)]


def test_an_approval_is_recorded_with_the_identity_once_and_a_rejection_is_final() -> None:
    trail, version = AuditTrail(MemoryEntries()), registry().versions()[0]
    for _ in range(2):
        record_approval(trail, version, who=ANN, why="better", at=1.0)
    (entry,) = trail.entries()
    assert (entry.what, entry.who, entry.subject) == ("approve", ANN, "x/1")
    trail.append(at=2.0, who="bob", what="reject", subject="arn:package", why="no")
    with pytest.raises(RegistryError, match="rejected by bob, and a rejection is final"):
        record_approval(trail, version, who=ANN, why="after all", at=3.0)


def test_a_rejection_begins_nothing() -> None:
    mlflow, begun = registry(), []
    said = promote(change("Rejected"), mlflow, ann, lambda *given: begun.append(given))
    assert (said, begun) == ({"promoted": False, "approval": "Rejected"}, [])
    assert mlflow.versions()[0].approval == "Rejected"


def test_a_package_without_a_version_is_left_to_reconcile() -> None:
    said = promote(change(), MlflowRegistry(MemoryModels()), ann, lambda *_: None)
    assert said == {"promoted": False}


def test_a_rollout_that_cannot_begin_is_an_answer_and_no_failure() -> None:
    def refuse(*_: Any) -> None:
        raise RegistryError("Fleet f runs x/1 already; nothing was changed.")

    said = promote(change(), registry(), ann, refuse)
    assert (said["promoted"], said["reason"][:7]) == (False, "Fleet f")


def versions() -> list[Version]:
    mlflow = MlflowRegistry(MemoryModels())
    for number in range(1, 5):
        mlflow.register(replace(package(), arn=f"arn:{number}"))
    found = {v.version: replace(v, approval="Approved") for v in mlflow.versions()}
    found["2"] = replace(found["2"], approval="Rejected")
    found["3"] = replace(found["3"], champion=True)
    return list(found.values())


def test_a_rollback_goes_to_the_newest_approved_version_before_the_champion() -> None:
    all_ = {v.version: v for v in versions()}
    assert rollback_target(versions(), all_["3"], None) == all_["1"]
    assert rollback_target(versions(), all_["3"], all_["4"]) == all_["4"]


@pytest.mark.parametrize(
    ("champion", "wanted", "message"),
    [
        ("3", "3", "is champion already"),
        ("3", "2", "is Rejected"),
        ("", "", "No version is champion"),
        ("1", "", "No approved version is older than x/1"),
    ],
)
def test_where_there_is_nothing_to_go_back_to(champion: str, wanted: str, message: str) -> None:
    all_ = {v.version: v for v in versions()}
    with pytest.raises(RegistryError, match=message):
        rollback_target(versions(), all_.get(champion), all_.get(wanted))
