"""A run's end as the callback's answer: outputs within limits, one short sentence."""

from __future__ import annotations

import pytest

from pipelines.handlers.conclude import outputs_of, reason_of
from pipelines.run.names import FLOAT_OUTPUTS, STRING_OUTPUTS


def test_outputs_keep_the_callbacks_limits() -> None:
    outcome = dict.fromkeys((*STRING_OUTPUTS, *FLOAT_OUTPUTS), "x" * 2000) | {
        "score": -1.5,
        "value": 1.5,
    }
    outputs = outputs_of(outcome, -9.0, "arn:e")
    assert len(outputs) <= 50
    assert all(isinstance(o["Value"], str) and len(o["Value"]) <= 1024 for o in outputs)
    assert {"Name": "champion_score", "Value": "-9.0"} in outputs


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            {"Error": "RunFailed", "Cause": "No device gave a valid update."},
            "No device gave a valid update.",
        ),
        ({"Error": "TooFewDevices", "Cause": "1 of 2"}, "1 of 2"),
        ({"Error": "Lambda.Unknown", "Cause": '{"errorMessage": "boom"}'}, "Lambda.Unknown: boom"),
        ({"Error": "States.HeartbeatTimeout"}, "States.HeartbeatTimeout: "),
        ({"Error": "X", "Cause": "y" * 999}, "X: " + "y" * 253),
    ],
)
def test_reasons_are_one_short_sentence(error: dict, reason: str) -> None:
    assert reason_of(error) == reason
