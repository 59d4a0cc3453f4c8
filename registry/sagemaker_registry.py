"""SageMaker's side: model packages and their approval."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Approval = Literal["PendingManualApproval", "Approved", "Rejected"]
MLFLOW_VERSION = "mlflow.model_version"
MLFLOW_NAME = "mlflow.model_name"
GATES_FAILED = "mledgeops.gates_failed"
"""Why a version does not pass the gates; absent when it does."""


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


class SageMakerRegistry:
    """Model packages through boto3."""

    def __init__(self, sagemaker: Any) -> None:
        self._client = sagemaker

    def get(self, arn: str) -> Package:
        """One package; raises RegistryError when it is not there."""
        try:
            found = self._client.describe_model_package(ModelPackageName=arn)
        except self._client.exceptions.ClientError as error:
            raise RegistryError(f"The model package {arn} is not in SageMaker's registry: {error.response['Error']['Message']}") from error
        containers = found.get("InferenceSpecification", {}).get("Containers", [{}])
        return Package(
            arn=found["ModelPackageArn"], group=found.get("ModelPackageGroupName", ""), version=found.get("ModelPackageVersion", 0),
            approval=found.get("ModelApprovalStatus", ""), metadata=found.get("CustomerMetadataProperties") or {},
            model_data=containers[0].get("ModelDataUrl", ""),
        )  # fmt: skip

    def set_approval(self, arn: str, approval: Approval, reason: str) -> None:
        """Approve or reject: SageMaker then emits its state-change event."""
        self._client.update_model_package(ModelPackageArn=arn, ModelApprovalStatus=approval, ApprovalDescription=reason[:1024])

    def add_metadata(self, arn: str, metadata: dict[str, str]) -> None:
        """Merge custom metadata into a package's."""
        self._client.update_model_package(ModelPackageArn=arn, CustomerMetadataProperties=metadata)
