"""The agent's side of a template: starts it, asks it for workers, and learns of their ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence

from edge.errors import MLEdgeOpsError
from edge.frames import STOP_SECONDS, LastWords, ask, cause_of_death
from edge.training.worker_template import MESSAGE_BYTES

START_SECONDS = 120.0
"""How long a template may take to import what it was given."""


class ForkingUnsafe(MLEdgeOpsError):
    """No worker can be forked: a module started threads, or the template did not start."""


class WorkerTemplate:
    """One template process. Its end, and the agent's, end all its workers.

    Args:
        modules: What it imports beforehand.
        env: Variables added to this process's environment.

    """

    def __init__(self, modules: Sequence[str], env: Mapping[str, str]) -> None:
        self._modules = modules
        self._env = {**os.environ, **env}
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._started: dict[int, asyncio.Future[int]] = {}
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._count = 0

    async def start(self) -> None:
        """Start the process. Raises ForkingUnsafe."""
        if not hasattr(socket, "send_fds") or sys.platform != "linux":
            raise ForkingUnsafe("only Linux's libraries survive a fork")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "edge.training.worker_template",
                str(theirs.fileno()),
                *self._modules,
                env=self._env,
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
            )
        self._control = ours
        self._reader = asyncio.create_task(self._read(ours))
        ready = asyncio.create_task(self._ready.wait())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                await asyncio.wait({ready, self._reader}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not self._ready.is_set():
            await self.stop()
            raise ForkingUnsafe("the template did not become ready")

    @property
    def is_alive(self) -> bool:
        """Whether workers can be forked."""
        return self._reader is not None and not self._reader.done()

    async def fork(self) -> ForkedWorker:
        """Return a new worker. Raises ForkingUnsafe when the template has died."""
        if self._control is None or not self.is_alive:
            raise ForkingUnsafe("the template has ended")
        loop = asyncio.get_running_loop()
        self._count += 1
        number, started = self._count, loop.create_future()
        self._started[number], self._ended[number] = started, loop.create_future()
        frames, theirs = socket.socketpair()
        errors, write_end = os.pipe()
        try:
            request = json.dumps({"fork": number}).encode()
            socket.send_fds(self._control, [request], [theirs.fileno(), write_end])
        except OSError as error:
            frames.close()
            os.close(errors)
            raise ForkingUnsafe("the template has ended") from error
        finally:
            theirs.close()
            os.close(write_end)
        worker = ForkedWorker(self, number, self._ended[number])
        try:
            await worker.connect(frames, errors)
            if await started < 0:
                raise ForkingUnsafe("the template has ended")
        except BaseException:  # given up: nobody else would end it
            await worker.stop()
            raise
        return worker

    def kill(self, number: int) -> None:
        """End a worker that does not end by itself."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.send(json.dumps({"kill": number}).encode())

    async def stop(self) -> None:
        """End the process and its workers."""
        if self._control is not None:
            self._control.close()
        if self._reader is not None:
            self._reader.cancel()
        process = self._process
        if process is None:
            return
        try:
            await asyncio.wait_for(process.wait(), 0.5)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self._lose_all()

    async def _read(self, control: socket.socket) -> None:
        """Take the template's messages until it ends."""
        loop = asyncio.get_running_loop()
        try:
            while message := await loop.sock_recv(control, MESSAGE_BYTES):
                self._take(json.loads(message))
        except OSError:
            pass
        finally:
            self._lose_all()

    def _take(self, message: dict[str, int]) -> None:
        if "ready" in message:
            self._ready.set()
        elif "pid" in message:
            _resolve(self._started.pop(message["fork"], None), message["pid"])
        else:
            _resolve(self._ended.pop(message["ended"], None), message["code"])

    def _lose_all(self) -> None:
        """The kernel ends a template's workers with it."""
        for waiting in (self._started, self._ended):
            while waiting:
                _resolve(waiting.popitem()[1], -9)


class ForkedWorker:
    """One forked worker; answers each frame with a frame, as a :class:`FramedProcess` does."""

    def __init__(self, template: WorkerTemplate, number: int, ended: asyncio.Future[int]) -> None:
        self._template = template
        self._number = number
        self._ended = ended

    async def connect(self, frames: socket.socket, errors: int) -> None:
        """Take over this side's ends of a socket and of a pipe."""
        self._frames, self._writer = await asyncio.open_unix_connection(sock=frames)
        stream = asyncio.StreamReader()
        self._pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(errors, "rb")
        )
        self._last_words = LastWords(stream)

    async def exchange(self, body: bytes) -> bytes:
        """Send a frame and return the answer. Raises as :func:`edge.frames.ask`."""
        return await ask(self._frames, self._writer, body)

    async def reason_of_death(self) -> str:
        """Say why the worker no longer answers, with its last words. Kills it if it still runs."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                code = await asyncio.shield(self._ended)
        except TimeoutError:
            await self.stop()
            return "the worker process stopped answering"
        reason = cause_of_death(code, await self._last_words.text())
        self._close()
        return reason

    async def stop(self) -> None:
        """End the worker: it works for nobody else."""
        self._template.kill(self._number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.shield(self._ended)
        self._close()

    def _close(self) -> None:
        self._last_words.stop()
        self._writer.close()
        self._pipe.close()


def _resolve(future: asyncio.Future[int] | None, value: int) -> None:
    if future is not None and not future.done():
        future.set_result(value)
