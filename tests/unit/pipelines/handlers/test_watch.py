"""A server that has ended, or hangs, is noticed long before its task token's heartbeat."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from fakes.services import memory_services

from fl_runtime.run.state import RunState
from pipelines.handlers import watch

TOKEN = [{"name": "MLEDGEOPS_TASK_TOKEN", "value": "t"}]
STOPPED = {
    "source": "aws.ecs",
    "detail": {
        "taskArn": "arn:task",
        "lastStatus": "STOPPED",
        "stoppedReason": "Essential container in task exited",
        "containers": [{"name": "server", "exitCode": 137, "reason": "OutOfMemoryError"}],
        "overrides": {"containerOverrides": [{"name": "server", "environment": TOKEN}]},
        "attributes": ["of any kind"],
    },
}


class Steps:
    """Step Functions with running executions, and the answers of tasks."""

    class exceptions:
        class TaskDoesNotExist(Exception):
            pass

        class TaskTimedOut(Exception):
            pass

        class InvalidToken(Exception):
            pass

    def __init__(self, *executions: str, answered: bool = False) -> None:
        self.executions, self.answered, self.failed = executions, answered, []

    def get_paginator(self, name: str) -> Any:
        assert name == "list_executions"
        pages = [{"executions": [{"name": item}]} for item in self.executions]
        return SimpleNamespace(paginate=lambda **_: pages)

    def send_task_failure(self, **failure: str) -> None:
        if self.answered:
            raise self.exceptions.TaskTimedOut
        self.failed.append(failure)


class Ecs:
    def __init__(self, gone: tuple[str, ...] = ()) -> None:
        self.gone, self.stopped = gone, []

    def stop_task(self, cluster: str, task: str, reason: str) -> None:
        if task in self.gone:
            raise ClientError({"Error": {"Code": "InvalidParameterException"}}, "StopTask")
        self.stopped.append((cluster, task))


def called(monkeypatch: pytest.MonkeyPatch, steps: Steps, request: dict) -> None:
    monkeypatch.setattr(watch, "services", lambda: memory_services(steps=steps))
    watch.handler(request, None)


def test_a_server_that_has_ended_fails_its_token_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = Steps()
    called(monkeypatch, steps, STOPPED)
    cause = "Essential container in task exited; exit code 137; OutOfMemoryError"
    assert steps.failed == [{"taskToken": "t", "error": "ServerCrashed", "cause": cause}]
    called(monkeypatch, Steps(answered=True), STOPPED)


def test_a_task_without_a_token_is_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps()
    called(monkeypatch, steps, {**STOPPED, "detail": {**STOPPED["detail"], "overrides": {}}})
    assert steps.failed == []


def test_a_server_that_beat_and_then_fell_silent_is_stopped() -> None:
    aws = memory_services(steps=Steps("new", "alive", "hangs", "gone", "unknown"))
    for run, task, beat_at in (
        ("run-new", "", 0.0),
        ("run-alive", "arn:alive", 940.0),
        ("run-hangs", "arn:hangs", 939.0),
        ("run-gone", "arn:gone", 1.0),
    ):
        aws.runs.create(RunState(run=run, state="Running"))
        aws.runs.update(run, task=task, beat_at=beat_at)
    ecs = Ecs(gone=("arn:gone",))
    assert watch.stop_silent(aws, ecs, "plant", 1000.0) == ["arn:hangs"]
    assert ecs.stopped == [("plant", "arn:hangs")]
