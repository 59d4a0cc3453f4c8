"""Who is who among ARNs, and who may override prechecks."""

from __future__ import annotations

import pytest
from fakes.provenance import Linked

from registry.errors import RegistryError
from registry.identity import is_overridden, may_override, record_override, same_identity
from registry.policy import PrecheckPolicy

ANN = "arn:aws:iam::1:user/ann"
ROLE = "arn:aws:iam::1:role/path/Ops"


def session(name: str, account: str = "1", role: str = "Ops") -> str:
    return f"arn:aws:sts::{account}:assumed-role/{role}/{name}"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (ANN, ANN, True),
        (ANN, "arn:aws:iam::1:user/bob", False),
        ("", "", False),
        (session("ann"), session("ann"), True),
        (session("ann"), session("bob"), False),
        (session("ann"), ROLE, True),
        (session("ann", account="2"), ROLE, False),
        (session("ann", role="Dev"), ROLE, False),
        ("(in SageMaker)", ANN, False),
    ],
)
def test_a_role_is_each_of_its_sessions_and_nobody_else(one: str, other: str, same: bool) -> None:
    assert same_identity(one, other) == same_identity(other, one) == same


def test_the_policy_says_who_may_override() -> None:
    ops = PrecheckPolicy(override_by=("arn:aws:sts::1:assumed-role/Ops/*",))
    assert may_override(PrecheckPolicy(), ANN)
    assert may_override(ops, session("ann"))
    assert not may_override(ops, ANN)
    linked = Linked()
    with pytest.raises(RegistryError, match="does not allow arn:aws:iam::1:user/ann"):
        record_override(linked.trail, ops, linked.version, who=ANN, why="r", wrong="w", at=1.0)
    assert list(linked.trail.entries()) == []


def test_an_override_is_good_for_its_package_until_a_rejection() -> None:
    linked, policy = Linked(), PrecheckPolicy()
    record_override(linked.trail, policy, linked.version, who=ANN, why="r", wrong="w", at=1.0)
    assert is_overridden(linked.trail, policy, linked.version, ANN)
    assert not is_overridden(
        linked.trail, PrecheckPolicy(override_by=("nobody",)), linked.version, ANN
    )
    linked.trail.append(at=2.0, who="bob", what="reject", subject="x/1", why="no")
    assert not is_overridden(linked.trail, policy, linked.version, ANN)
