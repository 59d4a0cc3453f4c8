"""The callback step's message becomes a run, or names the argument at fault."""

from __future__ import annotations

from typing import Any

import pytest

from fl_runtime.run.errors import RunFailed
from pipelines.run.option_table import PARAMETERS
from pipelines.run.request import CallbackMessage, spec_of


def message(**arguments: Any) -> CallbackMessage:
    given = {p.argument: p.default for p in PARAMETERS if p.argument} | {
        "app": "a" * 64,
        "app_name": "x",
        "fleet": "f",
    }
    return CallbackMessage(
        token="Tok1234567", pipeline_execution_arn="arn:p", arguments={**given, **arguments}
    )


def test_a_callback_message_becomes_a_run() -> None:
    spec = spec_of(
        message(
            num_rounds="5",
            strategy="FedAdam",
            strategy_params='{"eta": 0.1}',
            run_config='{"lr": 0.5, "on": true}',
        ),
        10.0,
    )
    assert (spec.run, spec.num_rounds, spec.strategy, spec.strategy_params, spec.run_config) == (
        "run-Tok1234567",
        5,
        "FedAdam",
        {"eta": 0.1},
        {"lr": 0.5, "on": True},
    )
    assert (spec.metric, spec.goal) == ("", "")
    assert spec.experiment == "x", "an experiment for each app"
    assert spec_of(message(experiment="ours"), 10.0).experiment == "ours"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_rounds": "10001"}, "num_rounds"),
        ({"num_rounds": -1}, "num_rounds"),
        ({"min_devices": 0}, "min_devices"),
        ({"app": "x"}, "app"),
        ({"fleet": "a/b"}, "fleet"),
        ({"run_config": "[1]"}, "run_config"),
        ({"strategy_params": "{"}, "strategy_params"),
        ({"devices_per_proxy": -1}, "devices_per_proxy"),
        ({"phase_seconds": 0}, "phase_seconds"),
        ({"goal": "sideways"}, "goal"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_parameters_that_make_no_run_are_named(arguments: dict, text: str) -> None:
    with pytest.raises(RunFailed) as refused:
        spec_of(message(**arguments), 0.0)
    assert text in str(refused.value)
    assert len(str(refused.value)) <= 256
