"""Steps of a pipeline's definition as plain JSON: for Terraform, CloudFormation, or no SDK at all.

https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-steps-types.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.training.app_bundle import FlowerApp
from pipelines.deployment import Deployment
from pipelines.errors import UsageError
from pipelines.run.names import FLOAT_OUTPUTS, STRING_OUTPUTS, package_group
from pipelines.step.arguments import PublishedApp, app_of, callback_arguments
from pipelines.step.variables import plain, plain_join
from registry.model_version import (
    DIGEST_TAG,
    EXECUTION,
    METRIC,
    MLFLOW_MODEL,
    MLFLOW_RUN,
    PENDING,
    RUN_TAG,
    SCORE_TAG,
)

STEP_NAME_LIMIT = 64
"""Characters of a step's name, of which SageMaker takes letters, digits, ``-`` and ``_``:
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_PipelineExecutionStep.html
"""
METADATA = {
    RUN_TAG: "run",
    DIGEST_TAG: "model_digest",
    SCORE_TAG: "score_text",
    METRIC: "metric",
    EXECUTION: "execution_arn",
    MLFLOW_RUN: "mlflow_run_id",
    MLFLOW_MODEL: "mlflow_model_id",
}
"""The outputs of a federated step that a registered package repeats, by the metadata's key."""


def federated_step_json(
    name: str,
    *,
    app: str | Path | FlowerApp | PublishedApp,
    deployment: Deployment,
    depends_on: Sequence[Any] = (),
    **options: Any,
) -> dict[str, Any]:
    """A federated run as a step of a pipeline's definition.

    Nothing is sent: an app that is given as a folder goes to the deployment's bucket by
    :func:`~pipelines.run.publication.upload`, or with any ``mledgeops run`` of it.

    Args:
        name: The step's.
        app: The Flower app: its folder, or what says that it is published.
        deployment: Whose queue and devices.
        depends_on: Names of earlier steps.
        options: As for ``FederatedStep``. A variable may be JSON, such as
            ``{"Get": "Parameters.Rounds"}``.

    Raises:
        UsageError: The name or an option cannot be used.
        AppError: The folder has no Flower app.

    """
    step = {
        "Name": check_name(name),
        "Type": "Callback",
        "Arguments": plain(callback_arguments(app_of(app), options, plain_join)),
        "SqsQueueUrl": deployment.queue_url,
        "OutputParameters": outputs(),
    }
    return {**step, **_depending(depends_on)}


def register_step_json(
    name: str,
    *,
    federated: str,
    group: str,
    image: str,
    depends_on: Sequence[Any] = (),
) -> dict[str, Any]:
    """The registration of a federated step's model as a step of a pipeline's definition.

    ``federated``: the name of the federated step. ``group``: the model package group. ``image``:
    the container that would serve the model.
    """
    found = {"Name": check_name(name), "Type": "RegisterModel"}
    arguments = registration({o: output_json(federated, o) for o in STRING_OUTPUTS}, group, image)
    return {**found, "Arguments": arguments, **_depending(depends_on)}


def registration(outputs: Mapping[str, Any], group: str, image: str) -> dict[str, Any]:
    """The arguments of CreateModelPackage. ``outputs``: the federated step's, by name."""
    return {
        "ModelPackageGroupName": group,
        "ModelMetrics": {
            "ModelQuality": {
                "Statistics": {"ContentType": "application/json", "S3Uri": outputs["evaluation"]}
            },
            "Bias": {},
            "Explainability": {},
        },
        "InferenceSpecification": {
            "Containers": [
                {"Image": image, "Environment": {}, "ModelDataUrl": outputs["model_data"]}
            ],
            "SupportedContentTypes": ["application/json"],
            "SupportedResponseMIMETypes": ["application/json"],
            "SupportedRealtimeInferenceInstanceTypes": ["ml.m5.large"],
            "SupportedTransformInstanceTypes": ["ml.m5.large"],
        },
        "ModelApprovalStatus": PENDING,
        "CustomerMetadataProperties": metadata(outputs),
        "SkipModelValidation": "None",
    }


def metadata(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata by which a package is known as the run's, and linked. ``outputs``: the federated
    step's, by name.
    """
    return {key: outputs[name] for key, name in METADATA.items()}


def outputs() -> list[dict[str, str]]:
    """What a federated step gives to the steps after it."""
    return [
        *({"OutputName": name, "OutputType": "String"} for name in STRING_OUTPUTS),
        *({"OutputName": name, "OutputType": "Float"} for name in FLOAT_OUTPUTS),
    ]


def output_json(step: str, name: str) -> dict[str, str]:
    """A reference to one of a step's outputs."""
    return {"Get": f"Steps.{step}.OutputParameters['{name}']"}


def check_name(name: str) -> str:
    """A step's name. Raises UsageError for one that SageMaker does not take."""
    if re.fullmatch(rf"[A-Za-z0-9_-]{{1,{STEP_NAME_LIMIT}}}", name):
        return name
    near = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:STEP_NAME_LIMIT] or "Federated"
    raise UsageError(
        f"{name!r} is no name of a step: SageMaker takes 1 to {STEP_NAME_LIMIT} letters, digits, "
        f"- and _, such as {near!r}."
    )


def group_of(app: FlowerApp | PublishedApp, given: str = "") -> str:
    """The model package group of an app. Raises UsageError if only the run will know the app."""
    if not given and not isinstance(app.name, str):
        raise UsageError("The app's name is a pipeline variable: name the model package group.")
    return given or package_group(app.name)


def _depending(names: Sequence[Any]) -> dict[str, list[str]]:
    found = [getattr(step, "name", step) for step in names]
    return {"DependsOn": found} if found else {}
