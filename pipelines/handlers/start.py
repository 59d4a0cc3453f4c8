"""EventBridge Scheduler -> SageMaker: starts a pipeline with the parameters of its schedule; where
it says so, only once inputs have drifted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from edge.logs import event
from fl_runtime.run.aws import client, setting
from fl_runtime.run.devices import DeviceStatus, DeviceTable
from pipelines.handlers.aws_clients import set_up_logs
from registry.evidence.drift import drift_of, servings

logger = logging.getLogger(__name__)


def reason_to_wait(request: Mapping[str, Any], devices: Iterable[DeviceStatus]) -> str:
    """Why the pipeline is not started now; empty when it is. ``request["when_drift"]``: what the
    drift must exceed.
    """
    above = request.get("when_drift")
    if above is None:
        return ""
    drift = drift_of(servings(devices))
    if not drift.devices:
        return "no device has reported enough predictions to tell whether its inputs have drifted"
    if drift.score <= above:
        return f"on the median of {drift.devices} devices inputs have moved by {drift.score:.2g} standard deviations, and {above:g} was waited for"
    return ""


def handler(request: Mapping[str, Any], context: object) -> dict[str, str]:
    """Lambda entry point. ``request``: ``{"pipeline": name, "parameters": {name: value},
    "when_drift": number or absent}``.
    """
    set_up_logs()
    fleet = request["parameters"].get("Fleet", "default")
    waits = reason_to_wait(
        request,
        DeviceTable(client("dynamodb"), setting("MLEDGEOPS_DEVICES_TABLE")).fleet(fleet)
        if "when_drift" in request
        else [],
    )
    if waits:
        event(logger, "not-started", pipeline=request["pipeline"], reason=waits)
        return {"pipeline_execution_arn": "", "reason": waits}
    parameters = [
        {"Name": name, "Value": str(value)} for name, value in request["parameters"].items()
    ]
    started = client("sagemaker").start_pipeline_execution(
        PipelineName=request["pipeline"], PipelineParameters=parameters
    )
    return {"pipeline_execution_arn": started["PipelineExecutionArn"]}
