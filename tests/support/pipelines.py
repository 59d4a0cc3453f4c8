"""An engine on fakes, for tests of pipeline definitions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakes.s3 import MemoryS3

from pipelines.local.sagemaker.definitions.checks import parsed
from pipelines.local.sagemaker.engine import Engine
from pipelines.local.sagemaker.executions import PipelineExecution
from pipelines.local.sagemaker.jobs.process import private_mounts
from pipelines.local.sagemaker.jobs.runner import JobRunner


def until(true: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen")
        time.sleep(0.005)


def engine_on(
    folder: Path, mounts: Callable[[], bool] = private_mounts, **clients: Any
) -> tuple[Engine, MemoryS3]:
    """An engine whose executions act with these clients, and its S3."""
    s3 = clients.setdefault("s3", MemoryS3())
    jobs = JobRunner(
        folder=folder,
        logs=folder / "logs",
        s3=lambda _role: s3,
        credentials=lambda _role: {},
        mounts=mounts,
    )
    prefix = "arn:aws:sagemaker:r:a"
    return Engine(folder / "executions", lambda _role: clients, prefix, jobs), s3


def ran(engine: Engine, definition: dict[str, Any], **given: Any) -> PipelineExecution:
    """A definition's execution at its end. The definition is checked as CreatePipeline checks."""
    parameters = {name: str(value) for name, value in given.items()}
    execution = engine.start("p", parsed(json.dumps(definition)), parameters)
    until(lambda: execution.status not in ("Executing", "Stopping"))
    return execution
