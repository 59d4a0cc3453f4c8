"""Brings an app and its pipeline to a deployment: before a run, and when a schedule is added."""

from __future__ import annotations

from botocore.exceptions import ClientError

from fl_runtime.run.keys import app_key
from pipelines.deployment import Deployment
from pipelines.run.clients import RunClients
from pipelines.run.definition import definition
from pipelines.run.names import pipeline_name
from pipelines.run.plan import RunPlan


def publish(plan: RunPlan, deployment: Deployment, clients: RunClients) -> str:
    """Upload the plan's app, and create or update the app's pipeline; returns its name."""
    clients.objects.put(app_key(plan.app_digest), plan.app.bundle())
    name = pipeline_name(deployment, plan.app.name)
    wanted = {
        "PipelineName": name,
        "PipelineDefinition": definition(deployment, plan.app.name),
        "RoleArn": deployment.pipeline_role,
    }
    try:
        clients.sagemaker.update_pipeline(**wanted)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("ResourceNotFound", "ValidationException"):
            raise
        # Also if the definition was refused: creating the pipeline then gives the same reason.
        clients.sagemaker.create_pipeline(**wanted)
    return name
