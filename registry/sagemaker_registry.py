"""SageMaker's side: model packages and their approval."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

Approval = Literal["PendingManualApproval", "Approved", "Rejected"]
MLFLOW_VERSION = "mlflow.model_version"
MLFLOW_NAME = "mlflow.model_name"
MLFLOW_RUN = "mlflow.run_id"
MLFLOW_MODEL = "mlflow.model_id"
METRIC = "mledgeops.metric"
EXECUTION = "mledgeops.execution_arn"
PENDING = "PendingManualApproval"


class RegistryError(Exception):
    """Something the registry refuses, in one sentence."""


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """One model package."""

    arn: str
    group: str
    version: int
    approval: str
    metadata: dict[str, str]
    model_data: str

    @property
    def model_version(self) -> str:
        """Its MLflow version as NAME/NUMBER, as the package names it; empty when it names none."""
        number = self.metadata.get(MLFLOW_VERSION, "")
        return f"{self.metadata.get(MLFLOW_NAME, '')}/{number}" if number else ""


class SageMakerRegistry:
    """Model packages through boto3."""

    def __init__(self, sagemaker: Any) -> None:
        self._client = sagemaker

    def get(self, arn: str) -> Package:
        """One package; raises RegistryError when it is not there."""
        try:
            found = self._client.describe_model_package(ModelPackageName=arn)
        except self._client.exceptions.ClientError as error:
            raise RegistryError(
                f"The model package {arn} is not in SageMaker's registry: {error.response['Error']['Message']}"
            ) from error
        containers = found.get("InferenceSpecification", {}).get("Containers", [{}])
        return Package(
            arn=found["ModelPackageArn"],
            group=found.get("ModelPackageGroupName", ""),
            version=found.get("ModelPackageVersion", 0),
            approval=found.get("ModelApprovalStatus", ""),
            metadata=found.get("CustomerMetadataProperties") or {},
            model_data=containers[0].get("ModelDataUrl", ""),
        )

    def packages(self) -> list[Package]:
        """All packages of all groups: a call for each page of 100, and one a package."""
        groups = self._pages("list_model_package_groups", "ModelPackageGroupSummaryList")
        names = [group["ModelPackageGroupName"] for group in groups]
        return [
            self.get(item["ModelPackageArn"])
            for name in names
            for item in self._pages(
                "list_model_packages", "ModelPackageSummaryList", ModelPackageGroupName=name
            )
        ]

    def _pages(self, call: str, key: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            answer = getattr(self._client, call)(MaxResults=100, **arguments, **token)
            yield from answer[key]
            if not answer.get("NextToken"):
                return
            token = {"NextToken": answer["NextToken"]}

    def set_approval(self, arn: str, approval: Approval, reason: str) -> None:
        """Approve or reject: SageMaker then emits its state-change event."""
        self._client.update_model_package(
            ModelPackageArn=arn, ModelApprovalStatus=approval, ApprovalDescription=reason[:1024]
        )

    def set_card(self, arn: str, content: str) -> None:
        """A package's model card, as JSON text."""
        self._client.update_model_package(
            ModelPackageArn=arn,
            ModelCard={"ModelCardContent": content, "ModelCardStatus": "PendingReview"},
        )

    def card(self, arn: str) -> str:
        """A package's model card; empty when it has none."""
        found = self._client.describe_model_package(ModelPackageName=arn).get("ModelCard") or {}
        return str(found.get("ModelCardContent", ""))

    def set_version(self, arn: str, name: str, version: str) -> None:
        """Name a package's MLflow version in it."""
        self.add_metadata(arn, {MLFLOW_NAME: name, MLFLOW_VERSION: version})

    def add_metadata(self, arn: str, metadata: dict[str, str]) -> None:
        """Merge custom metadata into a package's."""
        self._client.update_model_package(ModelPackageArn=arn, CustomerMetadataProperties=metadata)
