"""Length-prefixed frames over a subprocess's pipes: both ends.

A frame is four bytes of length (big-endian) and the body. The agent runs training and prediction
in subprocesses, so that a crash or an out-of-memory of the app never takes the agent down.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import BinaryIO

STOP_SECONDS = 5.0
"""How long a process that no longer answers may take to exit by itself."""
LAST_WORDS = 300
"""Characters of a dead process's standard error that its reason of death carries."""
_HEAD = 4
_KEPT = 4096
_PUMP_SECONDS = 0.5
"""How long to wait for the rest of a dead process's standard error: a process that it started may
hold the pipe open.
"""


def read_frame(stream: BinaryIO) -> bytes | None:
    """Read the next frame; None at the end of the stream."""
    head = stream.read(_HEAD)
    if len(head) < _HEAD:
        return None
    length = int.from_bytes(head, "big")
    body = stream.read(length)
    return body if body is not None and len(body) == length else None


def write_frame(stream: BinaryIO, body: bytes) -> None:
    """Write one frame and flush."""
    stream.write(len(body).to_bytes(_HEAD, "big") + body)
    stream.flush()


def take_over_stdout() -> BinaryIO:
    """Return a private copy of standard output, and point standard output at standard error.

    An app may print: its text must not end up between the frames.
    """
    frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return frames


class LastWords:
    """Passes a process's standard error on, and keeps its end.

    Args:
        stream: The read end of a pipe.

    """

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self._kept = b""
        self._pump = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while chunk := await self._stream.read(_KEPT):
            self._kept = (self._kept + chunk)[-_KEPT:]
            with contextlib.suppress(OSError):  # this process's own is closed or full
                os.write(2, chunk)

    async def text(self) -> str:
        """Return the last lines on one line. Ends the passing on: the process is dead."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PUMP_SECONDS):
                await asyncio.shield(self._pump)
        self.stop()
        lines = self._kept.decode(errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines if line.strip())[-LAST_WORDS:]

    def stop(self) -> None:
        """Stop passing on."""
        self._pump.cancel()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> bytes:
    """Send a frame and return the answer.

    Raises:
        ConnectionError: The other side died before it took the frame.
        asyncio.IncompleteReadError: It died before it answered.

    """
    writer.write(len(body).to_bytes(_HEAD, "big") + body)
    await writer.drain()
    head = await reader.readexactly(_HEAD)
    return await reader.readexactly(int.from_bytes(head, "big"))


def cause_of_death(code: int, last_words: str) -> str:
    """Say why a process ended.

    Args:
        code: Its exit code, negative for a signal.
        last_words: The end of its standard error.

    """
    cause = (
        f"the worker process was ended by signal {-code} (out of memory?)"
        if code < 0
        else f"the worker process exited with code {code}"
    )
    return f"{cause}: {last_words}" if last_words else cause


class FramedProcess:
    """A ``python -m MODULE`` subprocess that answers each frame with a frame.

    It starts with the first frame, stays warm between frames, and is started again after it died.

    Args:
        command: The module's name, then its arguments.
        env: Variables added to this process's environment.

    """

    def __init__(self, command: tuple[str, ...], env: dict[str, str]) -> None:
        self._command = command
        self._env = {**os.environ, **env}
        self._process: asyncio.subprocess.Process | None = None
        self._last_words: LastWords | None = None

    async def exchange(self, body: bytes) -> bytes:
        """Send a frame and return the answer.

        Raises:
            ConnectionError: The process died before it took the frame.
            asyncio.IncompleteReadError: The process died before it answered.

        """
        process = await self._running()
        assert process.stdin is not None and process.stdout is not None  # noqa: S101  # pipes were asked for
        return await ask(process.stdout, process.stdin, body)

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self._command,
                env=self._env,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            assert self._process.stderr is not None  # noqa: S101  # a pipe was asked for
            self._last_words = LastWords(self._process.stderr)
        return self._process

    async def reason_of_death(self) -> str:
        """Say why the process no longer answers, with its last words. Kills it if it still runs."""
        process, self._process = self._process, None
        if process is None or self._last_words is None:
            return "the worker process could not be started"
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        code = process.returncode
        if code is None:
            _kill(process)
            self._last_words.stop()
            return "the worker process stopped answering"
        return cause_of_death(code, await self._last_words.text())

    async def stop(self) -> None:
        """End the process: close its input, and kill it when that does not help."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 0.5)
        except TimeoutError:
            _kill(process)
            await process.wait()
        if self._last_words is not None:
            self._last_words.stop()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it exited in the meantime
        process.kill()
