"""Both registries in memory: the calls that we make of an MlflowClient and of boto3's SageMaker."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

from pipelines.aws.rehearsal.patterns import violations


class MemoryModels:
    """The model registry of an MlflowClient."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, str]] = {}
        """Aliases by model."""
        self.items: dict[tuple[str, str], Any] = {}
        self.tags: dict[str, dict[str, str]] = {}
        """Tags by model."""
        self.artifacts: dict[str, bytes] = {}

    def create_registered_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS

        if name in self.models:
            raise MlflowException("it exists", RESOURCE_ALREADY_EXISTS)
        self.models[name] = {}

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str = "",
        tags: dict[str, str] | None = None,
        model_id: str = "",
    ) -> Any:
        number = str(1 + sum(model == name for model, _ in self.items))
        item = SimpleNamespace(
            name=name,
            version=number,
            run_id=run_id,
            source=source,
            tags=dict(tags or {}),
            creation_timestamp=1000 * len(self.items),
        )
        self.items[name, number] = item
        return item

    def search_model_versions(self, query: str) -> list[Any]:
        """Only the query ``name = 'NAME'``, or none."""
        name = query.split("'")[1] if query else ""
        return [item for (model, _), item in self.items.items() if name in ("", model)]

    def search_registered_models(self) -> list[Any]:
        return [
            SimpleNamespace(name=name, aliases=a, tags=self.tags.get(name, {}))
            for name, a in self.models.items()
        ]

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        self.tags.setdefault(name, {})[key] = value

    def get_registered_model(self, name: str) -> Any:
        return SimpleNamespace(name=name, aliases=self.models[name])

    def get_model_version(self, name: str, version: str) -> Any:
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

        if (name, version) not in self.items:
            raise MlflowException("it is gone", RESOURCE_DOES_NOT_EXIST)
        return self.items[name, version]

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self.models[name][alias] = version

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        self.models[name].pop(alias, None)

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self.items[name, version].tags[key] = value

    def log_artifact(self, run_id: str, file: str, folder: str) -> None:
        self.artifacts[f"{run_id}/{folder}/{Path(file).name}"] = Path(file).read_bytes()


class MemorySageMaker:
    """Model packages of a SageMaker client, two to a page. What AWS documents as refused is."""

    PAGE = 2
    exceptions = SimpleNamespace(ClientError=ClientError)

    def __init__(self) -> None:
        self.packages: dict[str, dict[str, Any]] = {}

    def add(self, arn: str, group: str = "x", **metadata: str) -> None:
        self.packages[arn] = {
            "ModelPackageArn": arn,
            "ModelPackageGroupName": group,
            "ModelPackageVersion": 1 + len(self.packages),
            "ModelApprovalStatus": "PendingManualApproval",
            "CustomerMetadataProperties": dict(metadata),
            "InferenceSpecification": {"Containers": [{"ModelDataUrl": "s3://b/k"}]},
        }

    def describe_model_package(self, ModelPackageName: str) -> dict[str, Any]:
        if ModelPackageName not in self.packages:
            error = {"Error": {"Code": "ValidationException", "Message": "no such package"}}
            raise ClientError(error, "DescribeModelPackage")  # type: ignore[arg-type]
        return self.packages[ModelPackageName]

    def list_model_package_groups(self, **arguments: Any) -> dict[str, Any]:
        groups = sorted({p["ModelPackageGroupName"] for p in self.packages.values()})
        rows = [{"ModelPackageGroupName": group} for group in groups]
        return self._page("ModelPackageGroupSummaryList", rows, arguments)

    def list_model_packages(self, ModelPackageGroupName: str, **arguments: Any) -> dict[str, Any]:
        rows = [
            {"ModelPackageArn": arn}
            for arn, package in self.packages.items()
            if package["ModelPackageGroupName"] == ModelPackageGroupName
        ]
        return self._page("ModelPackageSummaryList", rows, arguments)

    def update_model_package(
        self,
        ModelPackageArn: str,
        CustomerMetadataProperties: dict[str, str] | None = None,
        **changes: Any,
    ) -> None:
        package = self.packages[ModelPackageArn]
        request = {"CustomerMetadataProperties": CustomerMetadataProperties, **changes}
        wrong = violations("sagemaker", "UpdateModelPackage", request)
        if wrong:  # as AWS refuses them
            error = {"Error": {"Code": "ValidationException", "Message": wrong[0]}}
            raise ClientError(error, "UpdateModelPackage")  # type: ignore[arg-type]
        package["CustomerMetadataProperties"] |= CustomerMetadataProperties or {}
        package.update(changes)

    def _page(self, key: str, rows: list[Any], arguments: dict[str, Any]) -> dict[str, Any]:
        first = int(arguments.get("NextToken", 0))
        answer: dict[str, Any] = {key: rows[first : first + self.PAGE]}
        if first + self.PAGE < len(rows):
            answer["NextToken"] = str(first + self.PAGE)
        return answer
