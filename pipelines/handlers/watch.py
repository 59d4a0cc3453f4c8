"""Watches the servers of runs: tells Step Functions of a task that has ended, and ends one that
hangs.

A server's task token has minutes until its first heartbeat, because Fargate takes that long to
start a task. For a server that died or hangs that would be long to wait, so EventBridge calls this
function when a task has stopped, and each minute.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from edge.logs import event
from edge.typed import convert
from fl_runtime.run.aws import client, setting
from fl_runtime.run.errors import CAUSE_LIMIT
from fl_runtime.run.keys import run_id
from fl_runtime.run.state import SILENT_SECONDS
from pipelines.handlers.aws_clients import Services, services

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "MLEDGEOPS_TASK_TOKEN"  # noqa: S105  # a variable's name


class StoppedTask(msgspec.Struct, rename="camel"):
    """An ECS task that has stopped, as its event has it:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_task_events.html
    """

    task_arn: str
    overrides: dict[str, Any]
    containers: list[dict[str, Any]] = []
    stopped_reason: str = ""

    @property
    def token(self) -> str:
        """The Step Functions token that the state machine gave the task; empty: none."""
        for override in self.overrides.get("containerOverrides", []):
            for variable in override.get("environment", []):
                if variable["name"] == TOKEN_VARIABLE:
                    return str(variable["value"])
        return ""

    @property
    def cause(self) -> str:
        """Why it stopped, with what its containers say."""
        said = [self.stopped_reason or "The task stopped"]
        for container in self.containers:
            if container.get("exitCode") is not None:
                said.append(f"exit code {container['exitCode']}")
            if container.get("reason"):
                said.append(str(container["reason"]))
        return "; ".join(dict.fromkeys(said))[:CAUSE_LIMIT]


def fail_token(task: StoppedTask, steps: Any) -> bool:
    """Fail the token of a server that has ended; False when it had answered, or had no token."""
    gone = steps.exceptions
    if not task.token:
        return False
    try:
        steps.send_task_failure(taskToken=task.token, error="ServerCrashed", cause=task.cause)
    except (gone.TaskDoesNotExist, gone.TaskTimedOut, gone.InvalidToken):
        return False
    event(logger, "server-ended", logging.WARNING, task=task.task_arn, reason=task.cause)
    return True


def stop_silent(aws: Services, ecs: Any, cluster: str, now: float) -> list[str]:
    """Stop the servers that have beaten and then fallen silent; returns their tasks. Each then
    comes back here as a task that has stopped.
    """
    stopped = []
    pages = aws.steps.get_paginator("list_executions").paginate(
        stateMachineArn=aws.state_machine, statusFilter="RUNNING"
    )
    # An execution is named by the callback's token, by which its run is named as well.
    for run in (run_id(item["name"]) for page in pages for item in page["executions"]):
        state = aws.runs.get(run)
        if state is None or state.silent_for(now) <= SILENT_SECONDS:
            continue
        reason = f"The server of {run} has not been heard of for {SILENT_SECONDS:.0f} s."
        try:
            ecs.stop_task(cluster=cluster, task=state.task, reason=reason)
        except ClientError as error:  # it has ended, and its successor has not beaten yet
            event(logger, "not-stopped", run=run, task=state.task, reason=str(error))
            continue
        event(logger, "server-silent", logging.WARNING, run=run, task=state.task, reason=reason)
        stopped.append(state.task)
    return stopped


def handler(request: Mapping[str, Any], context: object) -> None:
    """Lambda entry point of two EventBridge rules: of stopped tasks, and of each minute."""
    aws = services()
    if request.get("source") == "aws.ecs":
        fail_token(convert(request["detail"], StoppedTask), aws.steps)
        return
    stop_silent(aws, client("ecs"), setting("MLEDGEOPS_CLUSTER"), time.time())
