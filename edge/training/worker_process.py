"""The agent's side of the training subprocess."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

import msgspec

from edge.frames import FramedProcess
from edge.training.worker import WorkerJob, WorkerResult


class Workers(Protocol):
    """Port: runs jobs, and turns everything that the app does into a result."""

    async def run(self, job: WorkerJob, seconds: float) -> WorkerResult:
        """Run one job within ``seconds``. Never raises for what the app does."""

    async def stop(self) -> None:
        """Release what is held."""


class WorkerProcess:
    """:class:`Workers` on one subprocess, kept warm between jobs."""

    def __init__(self, env: dict[str, str]) -> None:
        self._process = FramedProcess(("edge.training.worker",), env)

    async def run(self, job: WorkerJob, seconds: float) -> WorkerResult:
        """Run one job. A worker that dies or takes too long is replaced by the next job."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                answer = await self._process.exchange(msgspec.msgpack.encode(job))
            return msgspec.msgpack.decode(answer, type=WorkerResult)
        except TimeoutError:
            await self._process.stop()
            result = WorkerResult(
                ok=False, code="deadline", reason=f"the app did not finish within {seconds:.0f} s"
            )
        except (ConnectionError, asyncio.IncompleteReadError, msgspec.DecodeError):
            reason = await self._process.reason_of_death()
            result = WorkerResult(ok=False, code="worker-died", reason=reason)
        result.work_seconds = time.monotonic() - started
        return result

    async def stop(self) -> None:
        """End the subprocess."""
        await self._process.stop()
