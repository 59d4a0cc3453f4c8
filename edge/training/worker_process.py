"""The agent's side of the training subprocess."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

import msgspec

from edge.frames import FramedProcess
from edge.training.worker import WorkerJob, WorkerResult
from edge.typed import from_msgpack


class Workers(Protocol):
    """Port: runs jobs, and turns everything that the app does into a result."""

    async def run(self, job: WorkerJob, seconds: float) -> WorkerResult:
        """Run one job within ``seconds``. Never raises for what the app does."""

    async def stop(self) -> None:
        """Release what is held."""


class AnyWorker(Protocol):
    """A worker, however it was started: answers each frame with a frame."""

    async def exchange(self, body: bytes) -> bytes:
        """Send a frame and return the answer. Raises as :func:`edge.frames.ask`."""

    async def reason_of_death(self) -> str:
        """Say why it no longer answers."""

    async def stop(self) -> None:
        """End it."""


async def run_job(process: AnyWorker, job: WorkerJob, seconds: float) -> tuple[WorkerResult, bool]:
    """Run one job within ``seconds``; returns its result, and whether the worker still lives."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            answer = await process.exchange(msgspec.msgpack.encode(job))
        return from_msgpack(answer, type=WorkerResult), True
    except TimeoutError:
        await process.stop()
        result = late(seconds)
    except (ConnectionError, asyncio.IncompleteReadError, msgspec.DecodeError):
        reason = await process.reason_of_death()
        result = WorkerResult(ok=False, code="worker-died", reason=reason)
    result.work_seconds = time.monotonic() - started
    return result, False


def late(seconds: float) -> WorkerResult:
    """The result of a job that was not done within ``seconds``."""
    return WorkerResult(
        ok=False, code="deadline", reason=f"the app did not finish within {seconds:.0f} s"
    )


class WorkerProcess:
    """:class:`Workers` on one subprocess, kept warm between jobs."""

    def __init__(self, env: dict[str, str]) -> None:
        self._process = FramedProcess(("edge.training.worker",), env)

    async def run(self, job: WorkerJob, seconds: float) -> WorkerResult:
        """Run one job. A worker that dies or takes too long is replaced by the next job."""
        result, _ = await run_job(self._process, job, seconds)
        return result

    async def stop(self) -> None:
        """End the subprocess."""
        await self._process.stop()
