"""What follows an approval: MLflow mirrors it, and the version's rollout begins."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from edge.logs import event
from registry.audit import AuditTrail
from registry.errors import RegistryError
from registry.identity import same_identity
from registry.mlflow_registry import MlflowRegistry
from registry.model_version import APPROVAL_TAG, REASON_TAG, SYNCED_TAG, Version

logger = logging.getLogger(__name__)


class StateChange(msgspec.Struct, rename="pascal"):
    """``detail`` of EventBridge's "SageMaker Model Package State Change".

    https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html
    """

    model_package_arn: str
    model_package_group_name: str
    model_approval_status: str
    approval_description: str = ""


Begin = Callable[[Version, str, str], None]
"""Begins or queues a version's rollout: (version, who approved, why)."""
IN_SAGEMAKER = "(in SageMaker)"
"""Who approved, where SageMaker does not say."""


def record_approval(audit: AuditTrail, version: Version, *, who: str, why: str, at: float) -> None:
    """Record who approved a version as AWS vouches for it, unless the trail has it already.

    Raises RegistryError when the trail has a rejection, which is final.
    """
    earlier = audit.last([version.model_version, version.model_package_arn], ["approve", "reject"])
    if earlier is not None and earlier.what == "reject":
        raise RegistryError(
            f"{version.model_version} was rejected by {earlier.who}, and a rejection is final."
        )
    if earlier is None or not same_identity(earlier.who, who):
        audit.append(
            at=at,
            who=who,
            what="approve",
            subject=version.model_version,
            why=why,
            package=version.model_package_arn,
        )


def promote(
    change: StateChange,
    mlflow: MlflowRegistry,
    approver: Callable[[str], str],
    begin: Begin,
    link: Callable[[str], bool] = lambda _: False,
) -> dict[str, Any]:
    """Mirror one state change in MLflow, and begin the rollout of an approved version (idempotent).

    ``approver``: ARN of the identity that changed a package last, as AWS vouches for it. The
    description is for display: it decides nothing. ``link``: links a package that no pipeline of
    ours will link, and tells whether it did; what is linked so waits for a person's approval.

    Returns what the promote function's log shows.
    """
    version = mlflow.of_package(change.model_package_group_name, change.model_package_arn)
    if version is None and link(change.model_package_arn):
        return {"promoted": False, "linked": True}
    if version is None:
        # The package was approved before its Link step made the MLflow version. `reconcile` acts
        # on the approval later.
        event(
            logger,
            "promotion-ignored",
            model_package_arn=change.model_package_arn,
            reason="no MLflow version carries this package's ARN",
        )
        return {"promoted": False}
    approval = change.model_approval_status
    mlflow.set_tags(
        version.name,
        version.version,
        {APPROVAL_TAG: approval, SYNCED_TAG: approval, REASON_TAG: change.approval_description},
    )
    if approval != "Approved":
        return {"promoted": False, "approval": approval}
    name, _, why = change.approval_description.partition(": ")
    try:
        begin(version, approver(change.model_package_arn) or IN_SAGEMAKER, why or name)
    except RegistryError as error:
        event(
            logger,
            "promotion-needless",
            model_package_arn=change.model_package_arn,
            reason=str(error),
        )
        return {"promoted": False, "approval": approval, "reason": str(error)}
    return {"promoted": True, "version": version.version}


def rollback_target(
    versions: Sequence[Version], champion: Version | None, wanted: Version | None
) -> Version:
    """The approved version to roll back to: the wanted one, else the newest approved version before
    the champion.

    Raises RegistryError when there is none, or when the wanted one cannot become champion.
    """
    if wanted is not None:
        if wanted.champion:
            raise RegistryError(f"{wanted.model_version} is champion already; nothing was changed.")
        if wanted.approval != "Approved":
            raise RegistryError(
                f"{wanted.model_version} is {wanted.approval}: "
                "only an approved version can be champion."
            )
        return wanted
    if champion is None:
        raise RegistryError("No version is champion, so there is nothing to roll back from.")
    before = [
        v
        for v in versions
        if v.name == champion.name
        and v.approval == "Approved"
        and int(v.version) < int(champion.version)
    ]
    if not before:
        raise RegistryError(
            f"No approved version is older than {champion.model_version}: "
            "there is nothing to roll back to."
        )
    return max(before, key=lambda v: int(v.version))
