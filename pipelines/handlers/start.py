"""Starts a pipeline for a schedule; if the schedule says so, only once inputs have drifted."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from edge.logs import event
from fl_runtime.run.devices import DeviceStatus
from pipelines.handlers.aws_clients import Services, services
from registry.evidence.drift import drift_of, servings

logger = logging.getLogger(__name__)


def reason_to_wait(above: float, devices: Iterable[DeviceStatus]) -> str:
    """Why inputs have not drifted enough. Empty: they have moved by more than ``above`` standard
    deviations.
    """
    drift = drift_of(servings(devices))
    if not drift.devices:
        return "no device has reported enough predictions to tell whether its inputs have drifted"
    if drift.score <= above:
        return (
            f"on the median of {drift.devices} devices inputs have moved by {drift.score:.2g} "
            f"standard deviations, and the schedule starts above {above:g}"
        )
    return ""


def start(request: Mapping[str, Any], aws: Services) -> dict[str, str]:
    """Start the pipeline, or say why not. ``request``: what the schedule was added with."""
    fleet, above = request["parameters"].get("Fleet", "default"), request.get("when_drift")
    waits = "" if above is None else reason_to_wait(above, aws.devices.fleet(fleet))
    if waits:
        event(logger, "not-started", pipeline=request["pipeline"], reason=waits)
        return {"pipeline_execution_arn": "", "reason": waits}
    started = aws.sagemaker.start_pipeline_execution(
        PipelineName=request["pipeline"],
        PipelineParameters=[
            {"Name": name, "Value": str(value)} for name, value in request["parameters"].items()
        ],
    )
    return {"pipeline_execution_arn": started["PipelineExecutionArn"]}


def handler(request: Mapping[str, Any], context: object) -> dict[str, str]:
    """Lambda entry point of EventBridge Scheduler. ``request``: ``{"pipeline": name, "parameters":
    {name: value}, "when_drift": number or absent}``.
    """
    return start(request, services())
