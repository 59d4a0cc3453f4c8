"""A schedule starts its pipeline, or waits until inputs have drifted."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.services import MemoryDevices, memory_services

from edge.protocol.messages import Heartbeat, Moments, Served, Serving
from fl_runtime.run.devices import DeviceStatus
from pipelines.handlers.start import reason_to_wait, start

REQUEST = {"pipeline": "mledgeops-x", "parameters": {"Fleet": "f", "NumRounds": 3}}


def drifted(mean: float) -> DeviceStatus:
    """A device whose input first had the mean 5 and the standard deviation 1."""
    served = Served(name="wind", first=Moments(500, 5.0, 1.0), recent=Moments(500, mean, 1.0))
    beat = Heartbeat(state="idle", model="x/1", serving=Serving(predictions=1000, inputs=[served]))
    return DeviceStatus(fleet="f", device="d", last_seen=0.0, heartbeat=beat)


@pytest.mark.parametrize(
    ("above", "devices", "reason"),
    [
        (1.0, [], "enough predictions"),
        (3.0, [drifted(7.0)], "moved by 2 standard deviations, and the schedule starts above 3"),
        (1.0, [drifted(7.0)], ""),
    ],
)
def test_a_schedule_may_wait_until_inputs_have_drifted(
    above: float, devices: list[DeviceStatus], reason: str
) -> None:
    found = reason_to_wait(above, devices)
    assert reason in found
    assert bool(found) == bool(reason)


def test_a_pipeline_starts_with_its_schedules_parameters() -> None:
    aws: Any = memory_services()
    assert start(REQUEST, aws) == {"pipeline_execution_arn": "arn:p/execution/1"}
    assert aws.sagemaker.started == [
        {
            "PipelineName": "mledgeops-x",
            "PipelineParameters": [
                {"Name": "Fleet", "Value": "f"},
                {"Name": "NumRounds", "Value": "3"},
            ],
        }
    ]


def test_a_pipeline_that_waits_is_not_started() -> None:
    aws: Any = memory_services(devices=MemoryDevices([drifted(5.5)]))
    answer = start({**REQUEST, "when_drift": 1.0}, aws)
    assert (answer["pipeline_execution_arn"], aws.sagemaker.started) == ("", [])
    assert "standard deviations" in answer["reason"]
