"""Starts a run for each callback message in the queue, and stops it when the pipeline stops.

The state machine's execution is named by the callback token, so a message that is delivered twice
starts one run: StartExecution is idempotent for the same name and input.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from edge.logs import event
from edge.typed import from_json
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.keys import run_id, spec_key
from fl_runtime.run.state import RunState
from pipelines.handlers.aws_clients import Services, services
from pipelines.handlers.callback import STOPPED, answer_failure, end_in_mlflow
from pipelines.run.request import CallbackMessage, spec_of

logger = logging.getLogger(__name__)


def start(message: CallbackMessage, aws: Services, now: float) -> str:
    """Write the specification, then the run's item, then start the state machine; returns the run.
    Each step is idempotent. Raises RunFailed for arguments that make no run.
    """
    spec = spec_of(message, now)
    if aws.runs.get(spec.run) is None:
        aws.objects.put(spec_key(spec.run), msgspec.json.encode(spec))
        aws.runs.create(
            RunState(
                run=spec.run,
                state="Starting",
                pipeline_execution_arn=spec.pipeline_execution_arn,
                created_at=now,
            )
        )
    body = msgspec.json.encode({"run": spec.run, "token": message.token}).decode()
    try:
        arn: str = aws.steps.start_execution(
            stateMachineArn=aws.state_machine, name=message.token, input=body
        )["executionArn"]
    except aws.steps.exceptions.ExecutionAlreadyExists:
        event(logger, "redelivered", run=spec.run)
        return spec.run
    aws.runs.update(spec.run, execution_arn=arn)
    return spec.run


def stop(message: CallbackMessage, aws: Services) -> None:
    """Stop the run and answer the callback, without which the pipeline stays ``Stopping``."""
    run = run_id(message.token)
    aws.runs.update(run, state="Stopping")
    arn = f"{aws.state_machine.replace(':stateMachine:', ':execution:')}:{message.token}"
    try:
        aws.steps.stop_execution(executionArn=arn, error="Stopped", cause=STOPPED)
    except aws.steps.exceptions.ExecutionDoesNotExist:
        event(logger, "stopped-before-start", run=run)
    except ClientError as error:  # it has ended meanwhile
        event(logger, "not-running", run=run, reason=str(error))
    end_in_mlflow(run, "Stopped", STOPPED, aws)
    aws.runs.update(run, state="Stopped", reason=STOPPED)
    answer_failure(message.token, STOPPED, aws)


def handler(queue_event: Mapping[str, Any], context: object) -> None:
    """Lambda entry point of the callbacks' queue."""
    aws = services()
    for record in queue_event["Records"]:
        message = from_json(record["body"], type=CallbackMessage)
        if message.status == "Stopping":
            stop(message, aws)
            continue
        try:
            event(logger, "dispatched", run=start(message, aws, time.time()))
        except RunFailed as error:
            answer_failure(message.token, str(error), aws)
