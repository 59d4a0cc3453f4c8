"""Brings an app and its pipeline to a deployment: before a run, and when a schedule is added."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fl_runtime.run.keys import app_key
from pipelines.deployment import Deployment
from pipelines.run import sdk
from pipelines.run.clients import RunClients
from pipelines.run.pipeline import build
from pipelines.run.plan import RunPlan

if TYPE_CHECKING:
    from sagemaker.workflow.pipeline import Pipeline


def publish(plan: RunPlan, deployment: Deployment, clients: RunClients) -> Pipeline:
    """Upload the plan's app, and create or update the app's pipeline."""
    clients.objects.put(app_key(plan.app_digest), plan.app.bundle())
    pipeline = build(deployment, plan.app.name, sdk.session(deployment, clients.session))
    sdk.publish(pipeline, deployment)
    return pipeline
