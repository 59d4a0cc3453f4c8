"""AWS identities, by ARN, and who may override prechecks.

An override is an entry of the audit trail, written before the approval by the identity that then
approves. What an approval's description says decides nothing: anybody can type it in Studio.
"""

from __future__ import annotations

import fnmatch
from typing import Any

from registry.audit import AuditTrail
from registry.errors import RegistryError
from registry.model_version import Version
from registry.policy import PrecheckPolicy

OVERRIDE = "override"
"""Audit entry of an override."""


def same_identity(one: str, other: str) -> bool:
    """Whether two ARNs name one identity. A role's ARN names each of its sessions
    (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html).
    """
    if one == other:
        return bool(one)
    left, right = _role(one), _role(other)
    return (
        left is not None
        and right is not None
        and left[:2] == right[:2]
        and (not left[2] or not right[2])
    )


def record_override(
    audit: AuditTrail,
    policy: PrecheckPolicy,
    version: Version,
    *,
    who: str,
    why: str,
    wrong: str,
    at: float,
    **details: Any,
) -> None:
    """Record that an identity overrides the failed prechecks of a version. Raises RegistryError
    when the policy does not allow it.
    """
    if not may_override(policy, who):
        raise RegistryError(
            f"The policy does not allow {who} to override prechecks (override_by in [gates]): "
            f"{version.model_version}: {wrong}."
        )
    audit.append(
        at=at,
        who=who,
        what=OVERRIDE,
        subject=version.model_version,
        why=why,
        package=version.model_package_arn,
        checks=wrong,
        **details,
    )


def is_overridden(
    audit: AuditTrail, policy: PrecheckPolicy, version: Version, approver: str
) -> bool:
    """Whether the approver has overridden the version's prechecks, and may."""
    entry = audit.last([version.model_version], [OVERRIDE, "reject"])
    return (
        entry is not None
        and entry.what == OVERRIDE
        and entry.details.get("package") == version.model_package_arn
        and same_identity(entry.who, approver)
        and may_override(policy, entry.who)
    )


def may_override(policy: PrecheckPolicy, who: str) -> bool:
    """Whether the policy lets an identity override prechecks."""
    return not policy.override_by or any(
        fnmatch.fnmatchcase(who, pattern) for pattern in policy.override_by
    )


def _role(arn: str) -> tuple[str, str, str] | None:
    """Account, role and session of a role's or session's ARN; None for other identities."""
    parts = arn.split(":", 5)
    if len(parts) < 6:
        return None
    kind, _, rest = parts[5].partition("/")
    if kind == "role":
        return parts[4], rest.rpartition("/")[2], ""
    if kind == "assumed-role":
        role, _, session = rest.partition("/")
        return parts[4], role, session
    return None
