"""After RegisterModel: the MLflow version, and each registry naming the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fl_runtime.aws import client
from pipelines.handlers.wiring import set_up_logs
from registry.mlflow_registry import APPROVAL_TAG, DIGEST_TAG, PACKAGE_TAG, RUN_TAG, SCORE_TAG, MlflowRegistry
from registry.sagemaker_registry import MLFLOW_NAME, MLFLOW_VERSION, SageMakerRegistry


def link(request: Mapping[str, Any], mlflow: MlflowRegistry, sagemaker: SageMakerRegistry) -> str:
    """Make the MLflow version of a package and write both names; safe to repeat."""
    tags = {
        PACKAGE_TAG: request["model_package_arn"], RUN_TAG: request["run"], SCORE_TAG: str(request["score"]),
        DIGEST_TAG: request["model_digest"], APPROVAL_TAG: "PendingManualApproval",
    }  # fmt: skip
    name = request["model_name"]
    version = mlflow.register(name, mlflow_run_id=request["mlflow_run_id"], mlflow_model_id=request["mlflow_model_id"], tags=tags)
    sagemaker.add_metadata(request["model_package_arn"], {MLFLOW_NAME: name, MLFLOW_VERSION: version})
    return version


def handler(request: Mapping[str, Any], context: object) -> dict[str, str]:
    """Lambda entry point of the pipeline's Link step."""
    set_up_logs()
    return {"model_version": link(request, MlflowRegistry(), SageMakerRegistry(client("sagemaker")))}
