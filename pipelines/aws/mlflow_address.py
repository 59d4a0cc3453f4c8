"""Where a deployment's MLflow is. A managed server has its address by name; an app's ARN holds an
id that AWS makes, so the stack says it.
"""

from __future__ import annotations

from typing import Any

from pipelines.deployment import Deployment

MLFLOW_OUTPUT = "MlflowUri"
"""The data stack's output with the tracking URI."""


def tracking_uri(cloudformation: Any, d: Deployment) -> str:
    """The deployment's tracking URI: the stack's output, else the address of a managed server (a
    deployment of 0.4 has no output, and nothing is deployed yet where there is no stack).
    """
    try:
        (stack,) = cloudformation.describe_stacks(StackName=d.stacks[1])["Stacks"]
    except cloudformation.exceptions.ClientError:
        return d.mlflow_arn
    outputs = {item["OutputKey"]: str(item["OutputValue"]) for item in stack.get("Outputs", [])}
    return outputs.get(MLFLOW_OUTPUT) or d.mlflow_arn
