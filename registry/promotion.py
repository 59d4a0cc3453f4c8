"""What follows from an approval: both registries say the same, and the version goes to the fleet."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec

from edge.logs import event
from registry.mlflow_registry import APPROVAL_TAG, REASON_TAG, SYNCED_TAG, MlflowRegistry, Version
from registry.sagemaker_registry import RegistryError

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
"""Begins a version's rollout, or notes that it goes next: (version, who, why, whether pre-checks
that fail are overridden).
"""
OVERRIDE = "(over the pre-checks)"
"""In the description of an approval: whoever approved has seen that pre-checks fail, and has
decided otherwise.
"""


def promote(change: StateChange, mlflow: MlflowRegistry, begin: Begin) -> dict[str, Any]:
    """Mirror one state change, and begin what an approval means. Idempotent: the same event twice
    changes nothing more.
    """
    version = mlflow.of_package(change.model_package_group_name, change.model_package_arn)
    if version is None:
        # The package is younger than its link: the link step runs next, and `reconcile` hears of
        # the approval.
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
    try:
        begin(
            version,
            who if why else "(in SageMaker)",
            why or who,
            OVERRIDE in change.approval_description,
        )
    except RegistryError as error:
        event(
            logger,
            "promotion-needless",
            model_package_arn=change.model_package_arn,
            reason=str(error),
        )
        return {"promoted": False, "approval": approval, "reason": str(error)}
    return {"promoted": True, "version": version.version}


def earlier(versions: list[Version], champion: Version | None, wanted: Version | None) -> Version:
    """The approved version to go back to: the one wanted, else the newest approved before the
    champion.

    Raises RegistryError when there is none, or the one wanted may not be champion.
    """
    if wanted is not None:
        if wanted.champion:
            raise RegistryError(f"{wanted.model_version} is champion already; nothing was changed.")
        if wanted.approval != "Approved":
            raise RegistryError(
                f"{wanted.model_version} is {wanted.approval}: only an approved version can be champion."
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
            f"There is no approved version before {champion.model_version}: nothing to roll back to."
        )
    return max(before, key=lambda v: int(v.version))
