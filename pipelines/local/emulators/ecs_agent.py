"""Fargate on one machine: finds tasks by the ECS API, runs each as a process, says what came of it.

As the ECS agent does: environment from the task definition and the overrides, credentials of the
task role, logs to CloudWatch and to a file. A task that held a Step Functions token and died
without
answering fails at once, where on AWS its missing heartbeat would tell.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from edge.logs import event
from pipelines.deployment import Deployment
from pipelines.local.processes import end

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
LOG_BATCH_SECONDS = 1.0
LOG_BATCH_LINES = 500
SESSION_SECONDS = 43_200


class Task:
    """One running container: its process and its log."""

    def __init__(
        self,
        arn: str,
        container: dict[str, Any],
        environment: dict[str, str],
        log: Path,
        group: str,
        logs: Any,
    ) -> None:
        self.arn = arn
        self.token = environment.get("MLEDGEOPS_TASK_TOKEN", "")
        self._group = group
        self._stream = f"{container['name']}/{arn.rsplit('/', 1)[1]}"
        self._logs = logs
        module = container["command"][-1]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.local.child", str(os.getpid()), module],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._pump = threading.Thread(target=self._pump_log, args=(log,), daemon=True)
        self._pump.start()

    def finish(self) -> None:
        """Wait until the last log line has been taken over."""
        self._pump.join(timeout=5)

    def _pump_log(self, file: Path) -> None:
        """Copy the container's output to its file and, in batches, to CloudWatch Logs."""
        assert self.process.stdout is not None  # noqa: S101  # a pipe was asked for
        batch: list[dict[str, Any]] = []
        sent = time.monotonic()
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as out:
            for line in self.process.stdout:
                out.write(line)
                out.flush()
                batch.append(
                    {
                        "timestamp": int(time.time() * 1000),
                        "message": line.decode(errors="replace").rstrip()[:200_000] or " ",
                    }
                )
                if len(batch) >= LOG_BATCH_LINES or time.monotonic() - sent > LOG_BATCH_SECONDS:
                    self._ship(batch)
                    sent = time.monotonic()
        self._ship(batch)

    def _ship(self, batch: list[dict[str, Any]]) -> None:
        if not batch:
            return
        try:
            self._logs.put_log_events(
                logGroupName=self._group, logStreamName=self._stream, logEvents=batch
            )
        except (ClientError, BotoCoreError) as error:
            event(logger, "logs-not-shipped", logging.WARNING, reason=str(error))
        batch.clear()

    def open_stream(self) -> None:
        """Create the log stream; a stream that is there already is as good."""
        try:
            self._logs.create_log_stream(logGroupName=self._group, logStreamName=self._stream)
        except self._logs.exceptions.ClientError as error:
            event(logger, "log-stream", logging.DEBUG, reason=str(error))


class EcsAgent:
    """Runs the tasks of one cluster. ``serve`` is called in a thread that lives as long as the
    cloud.
    """

    def __init__(
        self,
        deployment: Deployment,
        clients: dict[str, Any],
        environment: dict[str, str],
        logs: Path,
    ) -> None:
        self._deployment = deployment
        self._ecs, self._steps, self._sts, self._logs = (
            clients[name] for name in ("ecs", "stepfunctions", "sts", "logs")
        )
        self._environment = environment
        self._folder = logs
        self._tasks: dict[str, Task] = {}
        self._seen: set[str] = set()
        self._stop = threading.Event()

    def serve(self) -> None:
        """Poll until :meth:`stop`; a failed poll is logged and tried again."""
        self._forget_old_tasks()
        while not self._stop.wait(POLL_SECONDS):
            try:
                self._start_new()
                self._reap()
            except (ClientError, BotoCoreError) as error:
                event(logger, "ecs-poll-failed", logging.WARNING, reason=str(error))
        for task in list(self._tasks.values()):
            end(task.process, 5.0)
        self._tasks.clear()

    def stop(self) -> None:
        """End all tasks and :meth:`serve`."""
        self._stop.set()

    def processes(self) -> dict[str, int]:
        """Process ids of running tasks by task ARN."""
        return {arn: task.process.pid for arn, task in self._tasks.items()}

    def _forget_old_tasks(self) -> None:
        """Tasks left by an earlier cloud are not started again: nobody waits for them."""
        arns = self._ecs.list_tasks(cluster=self._deployment.cluster, desiredStatus="RUNNING")[
            "taskArns"
        ]
        for arn in arns:
            self._ecs.stop_task(
                cluster=self._deployment.cluster, task=arn, reason="The local cloud was restarted."
            )
        self._seen.update(arns)

    def _start_new(self) -> None:
        arns = [
            a
            for a in self._ecs.list_tasks(
                cluster=self._deployment.cluster, desiredStatus="RUNNING"
            )["taskArns"]
            if a not in self._seen
        ]
        if not arns:
            return
        for description in self._ecs.describe_tasks(cluster=self._deployment.cluster, tasks=arns)[
            "tasks"
        ]:
            self._seen.add(description["taskArn"])
            self._start(description)

    def _start(self, description: dict[str, Any]) -> None:
        definition = self._ecs.describe_task_definition(
            taskDefinition=description["taskDefinitionArn"]
        )["taskDefinition"]
        container = definition["containerDefinitions"][0]
        environment = {item["name"]: item["value"] for item in container.get("environment", [])}
        for override in description["overrides"].get("containerOverrides", []):
            environment.update(
                {item["name"]: item["value"] for item in override.get("environment", [])}
            )
        name = "-".join(
            filter(
                None,
                (
                    environment.get("MLEDGEOPS_RUN", "task"),
                    container["name"],
                    environment.get("MLEDGEOPS_COHORT", ""),
                ),
            )
        )
        group = container["logConfiguration"]["options"]["awslogs-group"]
        full = {
            **self._environment,
            **environment,
            **self._credentials(definition["taskRoleArn"]),
            "MLEDGEOPS_SERVER_ADDRESS": "127.0.0.1",
        }
        task = Task(
            description["taskArn"], container, full, self._folder / f"{name}.log", group, self._logs
        )
        task.open_stream()
        self._tasks[task.arn] = task
        event(
            logger, "task-started", task=task.arn, container=container["name"], pid=task.process.pid
        )

    def _credentials(self, role: str) -> dict[str, str]:
        """The task role's own session: its policy is enforced, as on Fargate."""
        given = self._sts.assume_role(
            RoleArn=role, RoleSessionName="task", DurationSeconds=SESSION_SECONDS
        )["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
            "AWS_SESSION_TOKEN": given["SessionToken"],
        }

    def _reap(self) -> None:
        """Report ended processes, and end those whose task was stopped by the API."""
        for arn, task in list(self._tasks.items()):
            code = task.process.poll()
            if code is None:
                continue
            del self._tasks[arn]
            task.finish()
            reason = "Essential container in task exited"
            if code:
                reason = f"Essential container exited with code {code}"
                self._fail_token(task, reason)
            self._ecs.stop_task(cluster=self._deployment.cluster, task=arn, reason=reason)
            event(logger, "task-ended", task=arn, code=code)
        self._end_stopped()

    def _end_stopped(self) -> None:
        if not self._tasks:
            return
        for description in self._ecs.describe_tasks(
            cluster=self._deployment.cluster, tasks=list(self._tasks)
        )["tasks"]:
            if description["lastStatus"] == "STOPPED":
                end(self._tasks.pop(description["taskArn"]).process, 5.0)

    def _fail_token(self, task: Task, reason: str) -> None:
        if not task.token:
            return
        try:
            self._steps.send_task_failure(taskToken=task.token, error="ServerCrashed", cause=reason)
        except ClientError:
            return  # it had answered itself before it ended
