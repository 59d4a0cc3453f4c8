"""A callback message starts one run, however often it comes, and stops it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakes.services import memory_services

from fl_runtime.run.keys import spec_key
from fl_runtime.run.spec import decode_spec
from pipelines.handlers import dispatch
from pipelines.run.option_table import PARAMETERS
from pipelines.run.request import CallbackMessage

TOKEN, RUN = "Tok1234567", "run-Tok1234567"
ARGUMENTS = {p.argument: p.default for p in PARAMETERS if p.argument} | {"app_name": "x"}


def message(**arguments: Any) -> CallbackMessage:
    return CallbackMessage(
        token=TOKEN, pipeline_execution_arn="arn:p", arguments={**ARGUMENTS, **arguments}
    )


def queued(**changes: Any) -> dict[str, Any]:
    body = {"token": TOKEN, "pipelineExecutionArn": "arn:p", "arguments": ARGUMENTS} | changes
    return {"Records": [{"body": json.dumps(body)}]}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = memory_services()
    monkeypatch.setattr(dispatch, "services", lambda: made)
    return made


def test_a_message_starts_one_run_even_if_it_comes_twice(aws: Any) -> None:
    for _ in range(2):
        assert dispatch.start(message(), aws, 10.0) == RUN
    assert aws.objects.puts == [spec_key(RUN)]
    assert decode_spec(aws.objects.get(spec_key(RUN))).created_at == 10.0
    assert aws.runs.get(RUN).state == "Starting"
    assert aws.runs.get(RUN).execution_arn == f"arn:execution:{TOKEN}"


def test_arguments_that_make_no_run_fail_the_callback(aws: Any) -> None:
    dispatch.handler(queued(arguments={**ARGUMENTS, "num_rounds": "-1"}), None)
    assert "num_rounds" in aws.sagemaker.answers[TOKEN]
    assert aws.steps.executions == {}


def test_a_stopped_pipeline_stops_its_run_and_is_answered(aws: Any) -> None:
    dispatch.handler(queued(), None)
    dispatch.handler(queued(status="Stopping"), None)
    assert aws.steps.executions == {TOKEN: "ABORTED"}
    assert aws.runs.get(RUN).state == "Stopped"
    assert aws.sagemaker.answers == {TOKEN: "The pipeline was stopped."}
    assert [run.status for run in aws.mlflow().runs.values()] == ["KILLED"]
    dispatch.handler(queued(status="Stopping"), None)


def test_a_pipeline_that_stops_before_its_run_began_is_answered_too(aws: Any) -> None:
    dispatch.handler(queued(status="Stopping"), None)
    assert aws.sagemaker.answers == {TOKEN: "The pipeline was stopped."}
