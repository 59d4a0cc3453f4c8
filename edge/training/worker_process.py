"""Starts, feeds and, when it must, ends the worker process of one device."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from typing import Protocol

import msgspec

from edge.training.worker import Job, Outcome

STOP_SECONDS = 5.0


class Workers(Protocol):
    """Port: something that runs a job and never raises for what the app does."""

    async def run(self, job: Job, seconds: float) -> Outcome:
        """Run one job within ``seconds``."""

    async def stop(self) -> None:
        """Free what it holds."""


class FramedProcess:
    """One ``python -m MODULE`` that answers frames, kept warm between them and started anew when it
    has died.
    """

    def __init__(self, module: tuple[str, ...], env: dict[str, str]) -> None:
        self._module = module
        self._env = {**os.environ, **env}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return (
            self._process.pid
            if self._process is not None and self._process.returncode is None
            else None
        )

    async def exchange(self, body: bytes) -> bytes:
        """Send a frame and wait for the answer; raises ConnectionError or IncompleteReadError when
        the process dies.
        """
        process = await self._running()
        assert process.stdin is not None and process.stdout is not None  # noqa: S101  # pipes were asked for
        process.stdin.write(len(body).to_bytes(4, "big") + body)
        await process.stdin.drain()
        head = await process.stdout.readexactly(4)
        return await process.stdout.readexactly(int.from_bytes(head, "big"))

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self._module,
                env=self._env,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        return self._process

    async def reason_of_death(self) -> str:
        """Why it no longer answers; it is ended if it still runs."""
        process, self._process = self._process, None
        if process is None:
            return "the worker process could not be started"
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        code = process.returncode
        if code is None:
            process.kill()
            return "the worker process stopped answering"
        return (
            f"the worker process was ended by signal {-code} (out of memory?)"
            if code < 0
            else f"the worker process exited with code {code}"
        )

    async def stop(self) -> None:
        """End the process: by closing its input, then by force."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 0.5)
        except TimeoutError:
            process.kill()
            await process.wait()


class WorkerProcess(FramedProcess):
    """:class:`Workers` by one subprocess that is kept warm between jobs."""

    def __init__(self, env: dict[str, str]) -> None:
        super().__init__(("edge.training.worker",), env)

    async def run(self, job: Job, seconds: float) -> Outcome:
        """A worker that dies or is too slow is ended; the outcome says so."""
        started = time.monotonic()
        try:
            answer = await asyncio.wait_for(
                self.exchange(msgspec.msgpack.encode(job)), timeout=seconds
            )
            return msgspec.msgpack.decode(answer, type=Outcome)
        except TimeoutError:
            await self.stop()
            outcome = Outcome(
                ok=False, code="deadline", reason=f"the app did not finish within {seconds:.0f} s"
            )
        except (ConnectionError, asyncio.IncompleteReadError, msgspec.DecodeError):
            outcome = Outcome(ok=False, code="worker-died", reason=await self.reason_of_death())
        outcome.work_seconds = time.monotonic() - started
        return outcome
