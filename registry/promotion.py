"""What follows an approval: MLflow mirrors it, and the version's rollout begins."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from edge.logs import event
from registry.errors import RegistryError
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


Begin = Callable[[Version, str, str, bool], None]
"""Begins or queues a version's rollout: (version, who, why, override failed prechecks)."""
OVERRIDE = "(over the pre-checks)"
"""Part of an approval's description: the approver has seen that prechecks fail, and overrides
them.
"""


def promote(change: StateChange, mlflow: MlflowRegistry, begin: Begin) -> dict[str, Any]:
    """Mirror one state change in MLflow, and begin the rollout of an approved version (idempotent).

    Returns what the promote function's log shows.
    """
    version = mlflow.of_package(change.model_package_group_name, change.model_package_arn)
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
    who, _, why = change.approval_description.partition(": ")
    override = OVERRIDE in change.approval_description
    try:
        begin(version, who if why else "(in SageMaker)", why or who, override)
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
