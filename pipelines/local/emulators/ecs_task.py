"""One ECS task: the container's command as a process, its output to a file and to CloudWatch."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from edge.logs import event
from pipelines.local.forks.client import ForkedProcess
from pipelines.local.forks.server import ForkRequest
from pipelines.local.processes import child_command, end

logger = logging.getLogger(__name__)

BATCH_SECONDS = 1.0
BATCH_LINES = 500
SHOWN = ("MLEDGEOPS_RUN", "MLEDGEOPS_COHORT")
LINE_LIMIT = 200_000
"""Characters of one log event; CloudWatch Logs allows 256 KB:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html
"""


class LogStream:
    """A CloudWatch log stream that is written in batches."""

    def __init__(self, logs: Any, group: str, stream: str) -> None:
        self._logs = logs
        self._names = {"logGroupName": group, "logStreamName": stream}
        self._batch: list[dict[str, Any]] = []
        self._sent = time.monotonic()

    def create(self) -> None:
        """Create the stream (idempotent)."""
        try:
            self._logs.create_log_stream(**self._names)
        except ClientError as error:
            event(logger, "log-stream", logging.DEBUG, reason=str(error))

    def write(self, line: bytes) -> None:
        """Add a line; it is sent with the batch that it completes."""
        message = line.decode(errors="replace").rstrip()[:LINE_LIMIT] or " "
        self._batch.append({"timestamp": int(time.time() * 1000), "message": message})
        if len(self._batch) >= BATCH_LINES or time.monotonic() - self._sent > BATCH_SECONDS:
            self.flush()
            self._sent = time.monotonic()

    def flush(self) -> None:
        """Send what has not been sent. A batch that is refused is lost, as on Fargate."""
        if not self._batch:
            return
        try:
            self._logs.put_log_events(**self._names, logEvents=self._batch)
        except (ClientError, BotoCoreError) as error:
            event(logger, "logs-not-shipped", logging.WARNING, reason=str(error))
        self._batch = []


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """What a task runs, resolved from its task definition and overrides."""

    arn: str
    container: str
    """The container's name."""
    module: str
    """Python module that the container's command runs."""
    environment: dict[str, str]
    log: Path
    group: str
    """Log group."""


def _started(spec: TaskSpec, forks: str) -> subprocess.Popen[bytes] | ForkedProcess:
    environment = {**os.environ, **spec.environment}
    # The task takes no arguments: they let others find a run's tasks by their command lines.
    arguments = [value for name in SHOWN if (value := environment.get(name))]
    if forks:
        request = ForkRequest(module=spec.module, arguments=arguments, environment=environment)
        return ForkedProcess(forks, request, piped=(False, True, False), text=False)
    return subprocess.Popen(
        child_command(spec.module, arguments),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


class EcsTask:
    """A running container."""

    def __init__(self, spec: TaskSpec, logs: Any, forks: str = "") -> None:
        """``forks``: the fork server that starts it; empty: it is started by itself."""
        self.arn = spec.arn
        self._stream = LogStream(logs, spec.group, f"{spec.container}/{spec.arn.rsplit('/', 1)[1]}")
        self._stream.create()
        self.process = _started(spec, forks)
        self._pump = threading.Thread(target=self._pump_log, args=(spec.log,), daemon=True)
        self._pump.start()

    def end(self, seconds: float) -> None:
        """Ask the container to stop, and kill it if it takes longer."""
        if isinstance(self.process, ForkedProcess):
            self.process.end(seconds)
        else:
            end(self.process, seconds)

    def finish(self) -> None:
        """Wait until the last log line has been sent."""
        self._pump.join(timeout=5)

    def _pump_log(self, file: Path) -> None:
        """Copy the container's output to its file and to CloudWatch Logs."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as out:
            for line in self.process.stdout or ():
                out.write(line)
                out.flush()
                self._stream.write(line)
        self._stream.flush()
