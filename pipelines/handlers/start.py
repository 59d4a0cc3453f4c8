"""EventBridge Scheduler -> SageMaker: starts a pipeline with the parameters of its schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fl_runtime.aws import client
from pipelines.handlers.wiring import set_up_logs


def handler(request: Mapping[str, Any], context: object) -> dict[str, str]:
    """Lambda entry point. ``request``: ``{"pipeline": name, "parameters": {name: value}}``."""
    set_up_logs()
    parameters = [{"Name": name, "Value": str(value)} for name, value in request["parameters"].items()]
    started = client("sagemaker").start_pipeline_execution(PipelineName=request["pipeline"], PipelineParameters=parameters)
    return {"pipeline_execution_arn": started["PipelineExecutionArn"]}
