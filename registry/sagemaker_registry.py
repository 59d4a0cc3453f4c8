"""SageMaker's side: model packages, their approval and their model cards."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any

from registry.errors import RegistryError
from registry.model_version import (
    METADATA_LIMIT,
    MLFLOW_NAME,
    MLFLOW_VERSION,
    Approval,
    Package,
    VersionName,
)

DESCRIPTION_LIMIT = 1024
"""Characters of an approval's description
(https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateModelPackage.html).
"""


class SageMakerRegistry:
    """Model packages through a boto3 client of SageMaker."""

    def __init__(self, sagemaker: Any) -> None:
        self._client = sagemaker

    def get(self, arn: str) -> Package:
        """One package. Raises RegistryError when SageMaker cannot describe it."""
        try:
            found = self._client.describe_model_package(ModelPackageName=arn)
        except self._client.exceptions.ClientError as error:
            raise RegistryError(
                f"The model package {arn} is not in SageMaker's registry: "
                f"{error.response['Error']['Message']}"
            ) from error
        containers = found.get("InferenceSpecification", {}).get("Containers", [{}])
        return Package(
            arn=found["ModelPackageArn"],
            group=found.get("ModelPackageGroupName", ""),
            version=found.get("ModelPackageVersion", 0),
            approval=found.get("ModelApprovalStatus", ""),
            metadata=found.get("CustomerMetadataProperties") or {},
            modified_by=_identity(found.get("LastModifiedBy") or {}),
            model_data=containers[0].get("ModelDataUrl", ""),
        )

    def packages(self) -> list[Package]:
        """All packages of all groups: one call per page of 100, and one per package.

        ListModelPackages does not return the metadata, so each package is described by itself.
        """
        groups = self._pages("list_model_package_groups", "ModelPackageGroupSummaryList")
        names = [group["ModelPackageGroupName"] for group in groups]
        return [
            self.get(item["ModelPackageArn"])
            for name in names
            for item in self._pages(
                "list_model_packages", "ModelPackageSummaryList", ModelPackageGroupName=name
            )
        ]

    def set_approval(self, arn: str, approval: Approval, reason: str) -> None:
        """Set a package's approval; SageMaker then emits its state-change event."""
        self._client.update_model_package(
            ModelPackageArn=arn,
            ModelApprovalStatus=approval,
            ApprovalDescription=reason[:DESCRIPTION_LIMIT],
        )

    def set_card(self, arn: str, content: str) -> str:
        """Set a package's model card, given as JSON text. Returns the reason when SageMaker refuses
        its content, else an empty text.
        """
        try:
            self._client.update_model_package(
                ModelPackageArn=arn,
                ModelCard={"ModelCardContent": content, "ModelCardStatus": "PendingReview"},
            )
        except self._client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "ValidationException":
                raise
            return str(error.response["Error"]["Message"])
        return ""

    def card(self, arn: str) -> str:
        """A package's model card as JSON text; empty when it has none."""
        found = self._client.describe_model_package(ModelPackageName=arn).get("ModelCard") or {}
        return str(found.get("ModelCardContent", ""))

    def set_version(self, arn: str, version: VersionName) -> None:
        """Write the name of a package's MLflow version into its metadata."""
        self.add_metadata(arn, {MLFLOW_NAME: version.model, MLFLOW_VERSION: version.number})

    def add_metadata(self, arn: str, metadata: dict[str, str]) -> None:
        """Add or overwrite custom metadata; SageMaker keeps the other keys. Characters that it does
        not take become spaces.
        """
        taken = {key: metadata_text(value) for key, value in metadata.items()}
        self._client.update_model_package(ModelPackageArn=arn, CustomerMetadataProperties=taken)

    def _pages(self, call: str, key: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            answer = getattr(self._client, call)(MaxResults=100, **arguments, **token)
            yield from answer[key]
            if not answer.get("NextToken"):
                return
            token = {"NextToken": answer["NextToken"]}


def metadata_text(text: str) -> str:
    """A value as CustomerMetadataProperties takes it: letters, numbers, separators and
    ``_.:/=+-@``, at most METADATA_LIMIT characters.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModelPackage.html
    """
    taken = "".join(
        c if c in "_.:/=+-@" or unicodedata.category(c)[0] in "LNZ" else " " for c in text
    )
    return taken[:METADATA_LIMIT] or "-"


def _identity(context: dict[str, Any]) -> str:
    """ARN in a UserContext, which AWS fills from the caller's signature
    (https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UserContext.html).
    """
    return str((context.get("IamIdentity") or {}).get("Arn", ""))
