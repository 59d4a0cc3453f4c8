"""Approving and rejecting a version: in SageMaker, whose event then updates MLflow."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Sequence

from registry.audit import AuditTrail
from registry.errors import RegistryError
from registry.mlflow_registry import MlflowRegistry
from registry.model_version import Approval, Version
from registry.sagemaker_registry import SageMakerRegistry

EVENT_SECONDS = 60.0
"""How long MLflow may take to follow SageMaker's state-change event."""
POLL_SECONDS = 0.3


def find(versions: Sequence[Version], wanted: str) -> Version:
    """A version by number, by NAME/NUMBER or by its package's ARN. Raises RegistryError when none
    or several match.
    """
    if not versions:
        raise RegistryError("No model is registered yet: run `mledgeops run APP` first.")
    found = [v for v in versions if wanted in (v.version, v.model_version, v.model_package_arn)]
    if not found:
        there = ", ".join(v.model_version for v in versions[:8])
        raise RegistryError(f"There is no model version {wanted!r}; there are {there}.")
    if len({v.name for v in found}) > 1:
        raise RegistryError(
            f"Several models have a version {wanted}: "
            f"give {' or '.join(v.model_version for v in found)}."
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
    who: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Version:
    """Set a version's approval in SageMaker, record it in the audit trail, and wait until MLflow
    shows it. Returns the version as MLflow then has it.

    ``who``: the caller's ARN. A rejection is final. Raises RegistryError when the state forbids
    the decision, or when MLflow does not follow within :data:`EVENT_SECONDS`.
    """
    package, name = sagemaker.get(version.model_package_arn), version.model_version
    if package.approval == approval:
        raise RegistryError(f"{name} is {approval} already; nothing was changed.")
    if package.approval == "Rejected":
        raise RegistryError(f"{name} was rejected, and a rejection is final: train a new version.")
    user, subjects = getpass.getuser(), (name, version.model_package_arn)
    earlier = trail.decision(*subjects)
    trail.append(
        at=time.time(),
        who=who,
        what="approve" if approval == "Approved" else "reject",
        subject=name,
        why=reason,
        package=version.model_package_arn,
        before=package.approval,
        user=user,
    )
    if approval == "Approved" and earlier == "reject":
        raise RegistryError(
            f"Somebody else is rejecting {name} at the same time, and a rejection is final."
        )
    sagemaker.set_approval(version.model_package_arn, approval, f"{user}: {reason}")
    # SageMaker keeps the last of two concurrent writes, whichever that is. The trail has an order,
    # and a rejection in it wins.
    if approval == "Approved" and trail.decision(*subjects) == "reject":
        sagemaker.set_approval(
            version.model_package_arn, "Rejected", f"{user}: rejected at the same time"
        )
        raise RegistryError(
            f"Somebody else rejected {name} at the same time, and a rejection is final."
        )
    return _await_mlflow(mlflow, version, approval, clock, sleep)


def _await_mlflow(
    mlflow: MlflowRegistry,
    version: Version,
    approval: Approval,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Version:
    deadline = clock() + EVENT_SECONDS
    while clock() < deadline:
        current = find(mlflow.versions(version.name), version.version)
        if current.approval == approval:
            return current
        sleep(POLL_SECONDS)
    raise RegistryError(
        f"{version.model_version} is {approval} in SageMaker, but MLflow did not follow within "
        f"{EVENT_SECONDS:.0f} s: `mledgeops reconcile` repairs it, and the log of the promote "
        "function says why."
    )
