"""Runs jobs: folders, process, result."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.local.sagemaker.jobs import processing, training
from pipelines.local.sagemaker.jobs.container import ML
from pipelines.local.sagemaker.jobs.process import JobProcess, private_mounts
from pipelines.local.sagemaker.jobs.python import make_environment
from pipelines.local.sagemaker.jobs.stand_ins import StandIn, StandIns
from pipelines.local.sagemaker.outcomes import StepFailed

WHY_NOT: dict[str, Callable[[dict[str, Any]], str]] = {
    "Processing": processing.why_not,
    "Training": training.why_not,
}
MAX_SECONDS = 86_400.0
"""How long a job may run that sets no limit itself; SageMaker's own default."""
SHOWN_LINES = 15
"""Lines of its log that a failed job's reason has."""
_DESCRIBED_AS = {"Processing": "ProcessingJob", "Training": "TrainingJob"}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job."""

    name: str
    arn: str
    pipeline: str
    step: str
    kind: str
    """The step's type."""
    arguments: dict[str, Any]
    """The step's arguments, with references replaced."""

    @property
    def seconds(self) -> float:
        """How long it may run."""
        limit = self.arguments.get("StoppingCondition", {}).get("MaxRuntimeInSeconds")
        return float(limit or MAX_SECONDS)


@dataclass(frozen=True, kw_only=True)
class JobRunner:
    """Runs the jobs of a local cloud, each in a folder that goes when it ends."""

    folder: Path
    """``sagemaker`` in the home."""
    logs: Path
    """Gets a file for each job."""
    s3: Callable[[str], Any]
    """An S3 client that acts as a role, by the role's ARN."""
    credentials: Callable[[str], Mapping[str, str]]
    """Environment variables with which a process acts as a role."""
    mounts: Callable[[], bool] = private_mounts

    def why_not(self, pipeline: str, step: dict[str, Any]) -> str:
        """Why a step cannot run here; empty: it can, or has a stand-in."""
        if StandIns(self.folder).find(pipeline, step["Name"]) is not None:
            return ""
        reason = WHY_NOT.get(step["Type"], _no_service)(step)
        return f"{reason} Give it a stand-in: a Python function of yours." if reason else ""

    def run(self, job: Job, stopping: threading.Event) -> dict[str, Any]:
        """Run a job to its end; returns the step's properties, as a Describe call would answer.

        Raises:
            StepFailed: The job failed; the reason has the end of its log.
            ExecutionStopped: The execution was stopped.

        """
        stand_in = StandIns(self.folder).find(job.pipeline, job.step)
        if stand_in is None and job.kind not in WHY_NOT:
            raise StepFailed(f"The local cloud cannot run a {job.kind} step.")
        began = time.time()
        with self._job_folder(job) as folder:
            found = self._run_in(folder, job, stand_in, stopping)
        name = _DESCRIBED_AS.get(job.kind)
        described = {f"{name}Name": job.name, f"{name}Arn": job.arn} if name else {}
        times = {"CreationTime": began, "LastModifiedTime": time.time()} if name else {}
        return {**job.arguments, **described, **times, **found}

    def _run_in(
        self, folder: Path, job: Job, stand_in: StandIn | None, stopping: threading.Event
    ) -> dict[str, Any]:
        ml, arguments = folder / "ml", job.arguments
        role = arguments.get("RoleArn", "")
        s3, log = self.s3(role), self.logs / f"{job.name}.log"
        environment = self._environment(folder, role)
        if job.kind == "Processing":
            processing.prepare(s3, arguments, ml)
        elif job.kind == "Training":
            training.prepare(s3, arguments, ml)
            environment |= training.variables(arguments, job.name, job.arn)
        environment |= {k: str(v) for k, v in arguments.get("Environment", {}).items()}
        answer = folder / "answer.json"
        if stand_in is not None:
            given = folder / "arguments.json"
            given.write_text(json.dumps(arguments))
            command, cwd = stand_in.command(str(given), str(answer)), str(folder / "work")
        elif job.kind == "Processing":
            command, cwd = processing.command(arguments), str(folder / "work")
        else:
            training.prepare_code(s3, arguments, ml)
            command, cwd = training.command(arguments, ml)
        process = JobProcess(
            folder=folder,
            mounted=self.mounts(),
            command=command,
            cwd=cwd,
            environment=environment,
            log=log,
            seconds=job.seconds,
        )
        code = process.run(stopping)
        if code != 0:
            raise StepFailed(_failure(process, code, ml))
        found: dict[str, Any] = {}
        if job.kind == "Processing":
            found = processing.collect(s3, arguments, ml)
        elif job.kind == "Training":
            found = training.collect(s3, arguments, ml, job.name, log)
        return {**found, **(json.loads(answer.read_text()) if stand_in is not None else {})}

    def _environment(self, folder: Path, role: str) -> dict[str, str]:
        """What every job gets."""
        programs = str(make_environment(folder / "python"))
        return {
            **self.credentials(role),
            "PATH": os.pathsep.join([programs, os.environ.get("PATH", os.defpath)]),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONUNBUFFERED": "1",
            "SAGEMAKER_SUPPRESS_V2_WARNING": "1",
            "VIRTUAL_ENV": str(folder / "python"),
        }

    @contextmanager
    def _job_folder(self, job: Job) -> Iterator[Path]:
        folder = self.folder / "jobs" / job.name
        for name in ("ml", "work", "python"):
            (folder / name).mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _no_service(step: dict[str, Any]) -> str:
    return f"{step['Type']} steps run on a service of AWS that is not here."


def _failure(process: JobProcess, code: int, ml: Path) -> str:
    """Why a job failed: what it says itself, else its exit code and the end of its log."""
    said = training.failure(ml)
    lines = process.tail().splitlines()[-SHOWN_LINES:]
    reason = said or f"exit code {code}; {' | '.join(line.strip() for line in lines)[-600:]}"
    hint = (
        ""
        if process.mounted
        else f" This system allows no private {ML}: read paths from arguments or SM_ variables."
    )
    return f"AlgorithmError: {reason}{hint} (log: {process.log})"
