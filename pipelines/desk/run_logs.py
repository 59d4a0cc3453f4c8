"""The log lines of a run's server and proxies: from the local cloud's files or from CloudWatch."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from pipelines.deployment import Deployment
from pipelines.desk.moments import moment
from pipelines.errors import UsageError
from pipelines.run.clients import RunClients

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_KNOWN = ("time", "level", "logger", "event", "exception")
TASKS = ("server", "proxy")
FOLLOW_SECONDS = 1.0


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a task's log."""

    task: str
    """Which task wrote it: ``server``, or ``proxy`` with its cohort or task id."""
    raw: str
    """The line as it was written."""
    time: float | None = None
    """Seconds since the epoch; None for a line that is not ours, such as a traceback's."""
    level: str = ""
    message: str = ""

    def is_at_least(self, level: str) -> bool:
        """Whether the line is of this level or above; lines without a level always are."""
        if self.level not in LEVELS:
            return True
        return LEVELS.index(self.level) >= LEVELS.index(level)


def parse_line(task: str, raw: str) -> LogLine:
    """A line of JSON as :mod:`edge.logs` writes it, or any other text."""
    try:
        fields = json.loads(raw)
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or not isinstance(fields.get("time"), int | float):
        return LogLine(task=task, raw=raw, message=raw)
    rest = [f"{key}={value}" for key, value in fields.items() if key not in _KNOWN]
    message = " ".join([str(fields.get("event", "")), *rest])
    trace = str(fields.get("exception") or "")
    return LogLine(
        task=task,
        raw=raw,
        time=float(fields["time"]),
        level=str(fields.get("level", "")),
        message=f"{message}\n{trace}" if trace else message,
    )


def in_order(lines: Iterator[LogLine]) -> list[LogLine]:
    """Lines of several tasks by time; a line without a time stays behind its predecessor."""
    keyed, last = [], 0.0
    for line in lines:
        last = line.time if line.time is not None else last
        keyed.append((last, line))
    return [line for _, line in sorted(keyed, key=lambda item: item[0])]


def local_lines(logs: Path, run: str) -> Iterator[LogLine]:
    """Lines of a local run, task by task.

    Raises:
        UsageError: There are no logs of this run.

    """
    files = sorted(logs.glob(f"{run}-*.log"))
    if not files:
        raise UsageError(f"There are no logs of {run} in {logs}: `mledgeops runs` lists the runs.")
    for file in files:
        for raw in file.read_text(errors="replace").splitlines():
            yield parse_line(file.stem.removeprefix(f"{run}-"), raw)


def cloud_lines(steps: Any, logs: Any, deployment: Deployment, execution: str) -> Iterator[LogLine]:
    """Lines of a run on AWS, task by task.

    The state machine's history names the ECS tasks; ECS names log streams PREFIX/CONTAINER/TASK:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html

    Args:
        steps: Step Functions client.
        logs: CloudWatch Logs client.
        deployment: Names the log groups.
        execution: ARN of the run's state machine execution.

    """
    for family, identifier in _tasks_of(steps, execution):
        task = next((task for task in TASKS if deployment.task_family(task) == family), "")
        if not task:
            continue
        name = task if task == "server" else f"{task}-{identifier[:8]}"
        stream = {
            "logGroupName": deployment.log_group(task),
            "logStreamNames": [f"{task}/{task}/{identifier}"],
        }
        try:
            pages = logs.get_paginator("filter_log_events").paginate(**stream)
            for item in (event for page in pages for event in page["events"]):
                yield parse_line(name, item["message"])
        except logs.exceptions.ResourceNotFoundException:
            continue  # the task ended before it wrote anything


def run_lines(
    run: str,
    deployment: Deployment,
    client: Callable[[str], Any],
    clients: RunClients,
    home: Path | None,
) -> list[LogLine]:
    """All lines of a run so far, in the order of time. ``home``: a local cloud's folder.

    Raises:
        UsageError: There are none.

    """
    if home is not None:
        return in_order(local_lines(home / "logs", run))
    state = clients.runs.get(run)
    if state is None or not state.execution_arn:
        raise UsageError(f"There are no logs of {run}: `mledgeops runs` lists the runs.")
    steps, logs = client("stepfunctions"), client("logs")
    return in_order(cloud_lines(steps, logs, deployment, state.execution_arn))


def follow_lines(
    read: Callable[[], list[LogLine]],
    ended: Callable[[], bool],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[LogLine]:
    """Lines as they come until the run has ended. ``read``: gives all lines so far."""
    seen: Counter[LogLine] = Counter()
    while True:
        last = ended()  # before the lines are read: none is missed
        try:
            found = Counter(read())
        except UsageError:  # no task has written anything yet
            found = Counter()
        new = found - seen
        yield from in_order(iter(new.elements()))
        seen = found
        if last:
            return
        sleep(FOLLOW_SECONDS)


def log_text(line: LogLine) -> str:
    """A line as a log shows it: time, level, task, message."""
    if line.time is None:
        return f"{'':25}  {'':8}  {line.task:12}  {line.message}"
    return f"{moment(line.time)}  {line.level:8}  {line.task:12}  {line.message}"


def _tasks_of(steps: Any, execution: str) -> Iterator[tuple[str, str]]:
    """(family, task id) of each ECS task that an execution has started."""
    pages = steps.get_paginator("get_execution_history").paginate(executionArn=execution)
    for item in (event for page in pages for event in page["events"]):
        output = item.get("taskSubmittedEventDetails", {}).get("output")
        for task in (json.loads(output) if output else {}).get("Tasks", []):
            family = task.get("TaskDefinitionArn", "").rsplit("/", 1)[-1].split(":")[0]
            yield family, task["TaskArn"].rsplit("/", 1)[-1]
