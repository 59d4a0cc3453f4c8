"""Names that the pipeline, the functions that it calls, and the commands that read it agree on."""

from __future__ import annotations

from pipelines.deployment import Deployment

CALLBACK_STEP = "FederatedRun"
REGISTER_STEP = "Register-RegisterModel"
"""The SDK's ModelStep gave it this name; executions of earlier releases have it."""
LINK_STEP = "Link"
REFUSE_STEP = "Refuse"
BELOW_STEP = "BelowBar"
MODEL_OUTCOME = "model"
"""The callback's output ``outcome`` of a run with a model; other runs end with the callback."""

STRING_OUTPUTS = (
    "run",
    "outcome",
    "rounds",
    "participants",
    "metric",
    "model_data",
    "evaluation",
    "model_digest",
    "mlflow_run_id",
    "mlflow_model_id",
    "execution_arn",
    "score_text",
    "ended",
)
"""The callback's outputs that are texts."""
FLOAT_OUTPUTS = ("value", "score", "champion_score")
"""The callback's outputs that the pipeline compares as numbers."""


def package_group(app_name: str) -> str:
    """The model package group, and the MLflow registered model, of an app."""
    return "".join(c if c.isalnum() else "-" for c in app_name).strip("-")[:60] or "app"


def pipeline_name(deployment: Deployment, app_name: str) -> str:
    """The pipeline of an app."""
    return f"{deployment.prefix}-{package_group(app_name)}"


def links_itself(execution_arn: str, prefix: str, app_name: str) -> bool:
    """Whether a pipeline execution is one of the app's own pipeline, which has a Link step.

    SageMaker writes a pipeline's name in its ARN in small letters.
    """
    pipeline = execution_arn.partition(":pipeline/")[2].partition("/execution/")[0]
    return pipeline.lower() == f"{prefix}-{package_group(app_name)}".lower()
