"""What moto's model packages lack: updates that merge, model cards, approval events."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from edge.logs import event
from pipelines.local.sagemaker.journal import Journal
from pipelines.local.sagemaker.moto_actions import Action, answered_by, invalid, written

logger = logging.getLogger(__name__)

EVENT_TYPE = "SageMaker Model Package State Change"


class PackageActions:
    """Wraps moto's actions on model packages."""

    def __init__(self, journal: Journal, caller: Callable[[Any], str]) -> None:
        """``caller``: ARN of the identity that made a request."""
        self._journal = journal
        self._caller = caller
        self._cards: dict[str, Any] = {}
        self._modified_by: dict[str, str] = {}
        """ARN of the last identity that changed a package, by the package's ARN."""
        self.events: Any = None
        """EventBridge client; None as long as nobody can be told."""

    def journalled(self, action: str, original: Action) -> Action:
        """An action that is written to the journal and emits the event of a new or changed
        approval.
        """

        def act(response: Any) -> Any:
            before = ""
            if action == "update_model_package":
                before = _merge_with_present(response)
                self._keep_card(response)
            answer = original(response)
            by = self._journal.replayed_for if self._journal.replaying else self._caller(response)
            if action == "update_model_package":
                self._modified_by[response.params["ModelPackageArn"]] = by
            with written():
                self._journal.write(action, response.params, by)
            if action == "create_model_package":
                self._emit_approval(response, answer.result["ModelPackageArn"], before)
            elif action == "update_model_package":
                self._emit_approval(response, response.params["ModelPackageArn"], before)
            return answer

        return act

    def described(self, original: Action) -> Action:
        """DescribeModelPackage with the model card and who changed the package last."""

        def describe(response: Any) -> dict[str, Any]:
            answer: dict[str, Any] = original(response).result
            card = self._cards.get(answer["ModelPackageArn"])
            by = self._modified_by.get(answer["ModelPackageArn"])
            return (
                answer
                | ({"ModelCard": card} if card is not None else {})
                | ({"LastModifiedBy": {"IamIdentity": {"Arn": by}}} if by else {})
            )

        return answered_by(describe)

    def _keep_card(self, response: Any) -> None:
        """Keep a package's model card; as in SageMaker its content must be a JSON object."""
        card = response.params.get("ModelCard")
        if card is None:
            return
        try:
            if not isinstance(json.loads(card["ModelCardContent"]), dict):
                raise ValueError("it is no object")
        except ValueError as error:
            raise invalid(f"ModelCardContent is not a model card: {error}.") from error
        self._cards[response.params["ModelPackageArn"]] = card

    def _emit_approval(self, response: Any, arn: str, before: str) -> None:
        """A package that is created has changed its approval too: from none."""
        if self._journal.replaying or self.events is None:
            return
        package = response.sagemaker_backend.describe_model_package(arn)
        if package.model_approval_status == before:
            return
        failed = self.events.put_events(Entries=[approval_event(package)])["FailedEntryCount"]
        event(
            logger,
            "model-package-event",
            model_package_arn=package.arn,
            approval=package.model_approval_status,
            failed=failed,
        )


def approval_event(package: Any) -> dict[str, Any]:
    """The EventBridge entry that SageMaker emits when a package's approval changes.

    https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html
    """
    detail = {
        "ModelPackageArn": package.arn,
        "ModelPackageName": package.arn.rsplit(":model-package/", 1)[1],
        "ModelPackageGroupName": package.model_package_group_name,
        "ModelPackageVersion": package.model_package_version,
        "ModelApprovalStatus": package.model_approval_status,
        "ApprovalDescription": package.approval_description or "",
    }
    return {
        "Source": "aws.sagemaker",
        "DetailType": EVENT_TYPE,
        "Detail": json.dumps(detail),
        "Resources": [package.arn],
    }


def _merge_with_present(response: Any) -> str:
    """Complete an update with what it omits, and return the approval as it was.

    moto overwrites omitted values with None; SageMaker keeps them.
    """
    given = response.params
    package = response.sagemaker_backend.describe_model_package(given["ModelPackageArn"])
    given.setdefault("ModelApprovalStatus", package.model_approval_status)
    given.setdefault("ApprovalDescription", package.approval_description)
    given.setdefault("CustomerMetadataPropertiesToRemove", [])
    given["CustomerMetadataProperties"] = {
        **(package.customer_metadata_properties or {}),
        **given.get("CustomerMetadataProperties", {}),
    }
    return str(package.model_approval_status)
