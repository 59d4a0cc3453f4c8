"""Runs a job's command to its end, within its time, unless the execution is stopped."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.local.processes import child_command, end
from pipelines.local.sagemaker.jobs.container import CANNOT_MOUNT, ML
from pipelines.local.sagemaker.outcomes import ExecutionStopped, JobLost, StepFailed

CONTAINER = "pipelines.local.sagemaker.jobs.container"
TAIL_BYTES = 4096
POLL_SECONDS = 0.1


@functools.cache
def private_mounts() -> bool:
    """Whether a process can have an ``/opt/ml`` of its own here."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "ml").mkdir()
        command = child_command(CONTAINER, [folder, "/", "true"])
        done = subprocess.run(command, capture_output=True, check=False)
        return done.returncode == 0


@dataclass(frozen=True, kw_only=True)
class JobProcess:
    """What a job runs, and where."""

    folder: Path
    """Holds ``ml``, which the job sees as ``/opt/ml``."""
    mounted: bool
    """Whether it does; else paths lead to the folder itself."""
    command: list[str]
    cwd: str
    """Folder that the command starts in, as the job sees it."""
    environment: Mapping[str, str]
    """Added to this process's own."""
    log: Path
    seconds: float
    """How long it may run."""

    def run(self, stopping: threading.Event) -> int:
        """Run it and return its exit code.

        Raises:
            ExecutionStopped: The execution was stopped; so is the job.
            StepFailed: It took longer than it may.
            JobLost: What runs it was killed.

        """
        arguments = [str(self.folder) if self.mounted else "", self._here(self.cwd)]
        arguments += self.command if self.mounted else map(self._here, self.command)
        with self._process(arguments) as process:
            deadline = time.monotonic() + self.seconds
            while process.poll() is None:
                if stopping.wait(POLL_SECONDS):
                    raise ExecutionStopped
                if time.monotonic() > deadline:
                    raise StepFailed(f"MaxRuntimeExceeded: the job ran for {self.seconds:.0f} s.")
            code = process.returncode
        if code < 0:
            raise JobLost("InternalServerError: the job's process was killed.")
        if code == CANNOT_MOUNT and self.mounted:
            raise JobLost("InternalServerError: the job's folders could not be mounted.")
        return code

    @contextlib.contextmanager
    def _process(self, arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = dict(self.environment)
        if not self.mounted:
            environment = {name: self._here(value) for name, value in environment.items()}
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                child_command(CONTAINER, arguments),
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            # The job must not outlive its step, nor a process that it has left behind.
            end(process)

    def _here(self, text: str) -> str:
        """A text with paths of the job as paths of this machine."""
        return text if self.mounted else text.replace(ML, str(self.folder / "ml"))

    def tail(self) -> str:
        """The last lines of the log."""
        if not self.log.is_file():
            return ""
        with self.log.open("rb") as stream:
            stream.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            return stream.read().decode(errors="replace").strip()
