"""Steps that call the registry: RegisterModel and Model."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from pipelines.local.sagemaker.definitions.graph import Step
from pipelines.local.sagemaker.jobs.names import job_name
from pipelines.local.sagemaker.steps.context import StepContext

_EMPTY_IN = ("ModelMetrics", "DriftCheckBaselines")


def register(step: Step, context: StepContext) -> dict[str, Any]:
    """Create a model package; as in SageMaker, its group is created when it is missing."""
    sagemaker = context.clients["sagemaker"]
    arguments = context.scope.resolve(step["Arguments"])
    if group := arguments.get("ModelPackageGroupName"):
        _ensure_group(sagemaker, group)
    for name in _EMPTY_IN:
        # The SDK writes empty objects, which the API's own validation refuses.
        if name in arguments:
            arguments[name] = {key: value for key, value in arguments[name].items() if value}
    arn = sagemaker.create_model_package(**arguments)["ModelPackageArn"]
    context.describe(step, "RegisterModel", {"Arn": arn})
    return {**arguments, "ModelPackageArn": arn, "ModelPackageName": arn.split("/", 1)[-1]}


def _ensure_group(sagemaker: Any, group: str) -> None:
    try:
        sagemaker.describe_model_package_group(ModelPackageGroupName=group)
        return
    except ClientError:
        pass
    try:
        sagemaker.create_model_package_group(ModelPackageGroupName=group)
    except ClientError:
        # Another step has created it meanwhile, or it cannot be created: then this raises.
        sagemaker.describe_model_package_group(ModelPackageGroupName=group)


def create(step: Step, context: StepContext) -> dict[str, Any]:
    """Create a model from the step's containers."""
    arguments = context.scope.resolve(step["Arguments"])
    given = arguments.pop("ModelName", None)
    name = job_name(context.execution.arn, step["Name"], given)
    arn = context.clients["sagemaker"].create_model(ModelName=name, **arguments)["ModelArn"]
    context.describe(step, "Model", {"Arn": arn})
    return {**arguments, "ModelName": name, "ModelArn": arn}
