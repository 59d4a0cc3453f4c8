"""Approving and rejecting a version: in SageMaker, whose event then moves MLflow's alias."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable

from registry.audit import AuditTrail
from registry.mlflow_registry import AUDIT_TAG, MlflowRegistry, Version
from registry.sagemaker_registry import Approval, RegistryError, SageMakerRegistry

EVENT_SECONDS = 60.0
"""How long the state-change event may take until the alias has followed."""
POLL_SECONDS = 0.3


def find(versions: list[Version], wanted: str) -> Version:
    """A version by number, by ``name/number``, or by its package ARN; raises RegistryError."""
    if not versions:
        raise RegistryError("No model is registered yet: run `mledgeops run APP` first.")
    found = [v for v in versions if wanted in (v.version, v.model_version, v.model_package_arn)]
    if not found:
        there = ", ".join(v.model_version for v in versions[:8])
        raise RegistryError(f"There is no model version {wanted!r}; there are {there}.")
    if len({v.name for v in found}) > 1:
        raise RegistryError(
            f"Several models have a version {wanted}: say which, as {' or '.join(v.model_version for v in found)}."
        )
    return found[0]


def decide(
    mlflow: MlflowRegistry,
    sagemaker: SageMakerRegistry,
    trail: AuditTrail,
    version: Version,
    approval: Approval,
    reason: str,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Version:
    """Set the approval, write down who and why, and wait until MLflow shows it; raises
    RegistryError when the state forbids it.
    """
    package, name = sagemaker.get(version.model_package_arn), version.model_version
    if package.approval == approval:
        raise RegistryError(f"{name} is {approval} already; nothing was changed.")
    if package.approval == "Rejected":
        raise RegistryError(f"{name} was rejected, and a rejection stands: train a new version.")
    who, earlier = getpass.getuser(), trail.decision(name)
    head = trail.append(
        at=time.time(),
        who=who,
        what="approve" if approval == "Approved" else "reject",
        subject=name,
        why=reason,
        package=version.model_package_arn,
        before=package.approval,
    )
    mlflow.set_tags(version.name, version.version, {AUDIT_TAG: head})
    if approval == "Approved" and earlier == "reject":
        raise RegistryError(
            f"{name} is being rejected by somebody else at this moment, and a rejection stands."
        )
    sagemaker.set_approval(version.model_package_arn, approval, f"{who}: {reason}")
    # The trail puts two that decide at once in an order; SageMaker keeps whoever writes last. A
    # rejection stands.
    if approval == "Approved" and trail.decision(name) == "reject":
        sagemaker.set_approval(
            version.model_package_arn, "Rejected", f"{who}: it was rejected at the same moment"
        )
        raise RegistryError(
            f"{name} was rejected by somebody else at the same moment, and a rejection stands."
        )
    deadline = clock() + EVENT_SECONDS
    while clock() < deadline:
        current = find(mlflow.versions(version.name), version.version)
        if current.approval == approval:
            return current
        sleep(POLL_SECONDS)
    raise RegistryError(
        f"{name} is {approval} in SageMaker, but MLflow did not follow within {EVENT_SECONDS:.0f} s: `mledgeops reconcile` repairs it; "
        "the promote function's log says why."
    )
