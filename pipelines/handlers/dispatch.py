"""SQS -> state machine: starts a run for each callback message, and stops it when the pipeline
stops.

The execution is named by the callback token, so a redelivered message starts nothing twice
(StartExecution is idempotent for the same name and input).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from edge.logs import event
from fl_runtime.run.errors import CAUSE_LIMIT, RunFailed
from fl_runtime.run.keys import run_id, spec_key
from fl_runtime.run.state import RunState
from pipelines.handlers.aws_clients import Services, services
from pipelines.run.request import CallbackMessage, spec_of

logger = logging.getLogger(__name__)


def start(message: CallbackMessage, aws: Services, now: float) -> str:
    """Write the specification, then the run's item, then start; each step may be repeated."""
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
    """Stop the run and answer the callback: a stopped pipeline waits until ``Stopping`` is
    answered.
    """
    run = run_id(message.token)
    aws.runs.update(run, state="Stopping")
    arn = f"{aws.state_machine.replace(':stateMachine:', ':execution:')}:{message.token}"
    try:
        aws.steps.stop_execution(
            executionArn=arn, error="Stopped", cause="The pipeline was stopped."
        )
    except aws.steps.exceptions.ExecutionDoesNotExist:
        event(logger, "stopped-before-start", run=run)
    except ClientError as error:  # it has ended by itself meanwhile
        event(logger, "not-running", run=run, reason=str(error))
    _end_in_mlflow(run, aws)
    aws.runs.update(run, state="Stopped", reason="The pipeline was stopped.")
    fail(message.token, "The pipeline was stopped.", aws)


def fail(token: str, reason: str, aws: Services) -> None:
    """Answer the callback with a failure."""
    aws.sagemaker.send_pipeline_execution_step_failure(
        CallbackToken=token, FailureReason=reason[:CAUSE_LIMIT]
    )


def _end_in_mlflow(run: str, aws: Services) -> None:
    from pipelines.handlers.conclude import end_in_mlflow

    end_in_mlflow(run, "Stopped", "The pipeline was stopped.", aws)


def handler(queue_event: Mapping[str, Any], context: object) -> None:
    """Lambda entry point for the SQS queue."""
    aws = services()
    for record in queue_event["Records"]:
        message = msgspec.json.decode(record["body"], type=CallbackMessage)
        if message.status == "Stopping":
            stop(message, aws)
            continue
        try:
            event(logger, "dispatched", run=start(message, aws, time.time()))
        except RunFailed as error:
            fail(message.token, str(error), aws)
