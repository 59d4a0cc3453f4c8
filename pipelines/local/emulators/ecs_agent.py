"""Fargate on one machine: finds tasks by the ECS API, runs each as a process, reports its end.

Like the ECS agent it gives a container the environment of its task definition and overrides,
credentials of the task role, and a log stream; and as ECS does it emits an event when a task stops.
"""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from edge.logs import event
from pipelines.local.emulators.ecs_task import EcsTask, TaskSpec

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
SESSION_SECONDS = 43_200
"""Of a task role's credentials: 12 h, longer than any local run."""
END_SECONDS = 5.0
STOPPED_EVENT = "ECS Task State Change"
"""https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_task_events.html"""
FORKED = ("server",)
"""The containers that are forked. A proxy imports little, and as a process of its own it takes the
memory that it takes on Fargate.
"""


class EcsAgent:
    """Runs the tasks of one cluster; ``serve`` needs a thread of its own."""

    def __init__(
        self,
        cluster: str,
        clients: dict[str, Any],
        environment: dict[str, str],
        logs: Path,
        forks: str = "",
    ) -> None:
        """``clients``: by service (ecs, events, sts, logs). ``logs``: the files' folder.
        ``forks``: the fork server's socket, if there is one.
        """
        self._cluster = cluster
        self._ecs, self._events = clients["ecs"], clients["events"]
        self._sts, self._logs = clients["sts"], clients["logs"]
        self._environment = environment
        self._folder = logs
        self._forks = forks
        self._tasks: dict[str, EcsTask] = {}
        self._seen: set[str] = set()
        self._stop = threading.Event()

    def serve(self) -> None:
        """Poll until :meth:`stop`; a failed poll is logged and repeated."""
        self._stop_old_tasks()
        while not self._stop.wait(POLL_SECONDS):
            try:
                running = self._running()
                self._start_new(running)
                self._reap()
                self._end_stopped(running)
            except (ClientError, BotoCoreError) as error:
                event(logger, "ecs-poll-failed", logging.WARNING, reason=str(error))
        for task in self._tasks.values():
            task.end(END_SECONDS)
        self._tasks.clear()

    def stop(self) -> None:
        """Make :meth:`serve` end all tasks and return."""
        self._stop.set()

    def _stop_old_tasks(self) -> None:
        """Stop tasks of an earlier cloud: the state machines that waited for them have ended."""
        for arn in self._running():
            self._seen.add(arn)
            self._ecs.stop_task(
                cluster=self._cluster, task=arn, reason="The local cloud was restarted."
            )

    def _running(self) -> list[str]:
        pages = self._ecs.get_paginator("list_tasks").paginate(
            cluster=self._cluster, desiredStatus="RUNNING"
        )
        return [arn for page in pages for arn in page["taskArns"]]

    def _start_new(self, running: list[str]) -> None:
        arns = [arn for arn in running if arn not in self._seen]
        if not arns:
            return
        for description in self._ecs.describe_tasks(cluster=self._cluster, tasks=arns)["tasks"]:
            self._seen.add(description["taskArn"])
            definition = self._ecs.describe_task_definition(
                taskDefinition=description["taskDefinitionArn"]
            )["taskDefinition"]
            environment = {
                **self._environment,
                **_environment_of(definition, description),
                **_credentials(self._sts, definition["taskRoleArn"]),
                "MLEDGEOPS_SERVER_ADDRESS": "127.0.0.1",
                "MLEDGEOPS_TASK": description["taskArn"],
            }
            spec = task_spec(description["taskArn"], definition, environment, self._folder)
            forks = self._forks if spec.container in FORKED else ""
            task = self._tasks[spec.arn] = EcsTask(spec, self._logs, forks)
            pid = task.process.pid
            event(logger, "task-started", task=spec.arn, container=spec.container, pid=pid)

    def _reap(self) -> None:
        """Report the tasks whose process has ended."""
        for arn, task in list(self._tasks.items()):
            code = task.process.poll()
            if code is None:
                continue
            del self._tasks[arn]
            task.finish()
            reason = "Essential container in task exited"
            if code:
                reason = f"Essential container exited with code {code}"
            self._ecs.stop_task(cluster=self._cluster, task=arn, reason=reason)
            self._emit_stopped(arn)
            event(logger, "task-ended", task=arn, code=code)

    def _end_stopped(self, running: list[str]) -> None:
        """End the processes of tasks that were stopped by the API: those that run no more."""
        for arn in self._tasks.keys() - set(running):
            self._tasks.pop(arn).end(END_SECONDS)
            self._emit_stopped(arn)

    def _emit_stopped(self, arn: str) -> None:
        """The event's detail is what DescribeTasks says of the task."""
        for task in self._ecs.describe_tasks(cluster=self._cluster, tasks=[arn])["tasks"]:
            entry = {
                "Source": "aws.ecs",
                "DetailType": STOPPED_EVENT,
                "Detail": json.dumps(task, default=str),
                "Resources": [arn],
            }
            self._events.put_events(Entries=[entry])


def task_spec(
    arn: str, definition: dict[str, Any], environment: dict[str, str], logs: Path
) -> TaskSpec:
    """What a task runs; its log file is named after its run, container and cohort."""
    container = definition["containerDefinitions"][0]
    name = (
        environment.get("MLEDGEOPS_RUN", "task"),
        container["name"],
        environment.get("MLEDGEOPS_COHORT", ""),
    )
    return TaskSpec(
        arn=arn,
        container=container["name"],
        module=container["command"][-1],
        environment=environment,
        log=logs / f"{'-'.join(filter(None, name))}.log",
        group=container["logConfiguration"]["options"]["awslogs-group"],
    )


def _environment_of(definition: dict[str, Any], description: dict[str, Any]) -> dict[str, str]:
    """A container's variables: its definition's, then those of the task's overrides."""
    given = list(definition["containerDefinitions"][0].get("environment", []))
    for override in description["overrides"].get("containerOverrides", []):
        given += override.get("environment", [])
    return {item["name"]: item["value"] for item in given}


def _credentials(sts: Any, role: str) -> dict[str, str]:
    """A session of the task role, so that its policy is enforced as on Fargate."""
    given = sts.assume_role(RoleArn=role, RoleSessionName="task", DurationSeconds=SESSION_SECONDS)[
        "Credentials"
    ]
    return {
        "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
        "AWS_SESSION_TOKEN": given["SessionToken"],
    }
