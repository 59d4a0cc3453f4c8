"""Brings an app and its pipeline to a deployment: before a run, and when a schedule is added."""

from __future__ import annotations

from botocore.exceptions import BotoCoreError, ClientError

from edge.training.app_bundle import FlowerApp
from fl_runtime.run.aws import S3Objects
from fl_runtime.run.keys import app_key
from pipelines.deployment import Deployment
from pipelines.errors import UsageError
from pipelines.run.clients import RunClients
from pipelines.run.definition import definition
from pipelines.run.names import pipeline_name
from pipelines.run.plan import RunPlan


def publish(plan: RunPlan, deployment: Deployment, clients: RunClients) -> str:
    """Upload the plan's app, and create or update the app's pipeline; returns its name."""
    upload(plan.app, clients.objects)
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


def upload(app: FlowerApp, objects: S3Objects) -> str:
    """Bring an app's files to the deployment's bucket; returns their digest.

    Raises:
        UsageError: S3 refuses them, with its reason.

    """
    digest = app.digest()
    try:
        objects.put(app_key(digest), app.bundle())
    except (BotoCoreError, ClientError) as error:
        raise UsageError(
            f"The app {app.name} could not be uploaded to s3://{objects.bucket}/{app_key(digest)}: "
            f"{error}"
        ) from error
    return digest
