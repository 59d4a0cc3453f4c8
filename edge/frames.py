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
_HEAD = 4


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

    async def exchange(self, body: bytes) -> bytes:
        """Send a frame and return the answer.

        Raises:
            ConnectionError: The process died before it took the frame.
            asyncio.IncompleteReadError: The process died before it answered.

        """
        process = await self._running()
        assert process.stdin is not None and process.stdout is not None  # noqa: S101  # pipes were asked for
        process.stdin.write(len(body).to_bytes(_HEAD, "big") + body)
        await process.stdin.drain()
        head = await process.stdout.readexactly(_HEAD)
        return await process.stdout.readexactly(int.from_bytes(head, "big"))

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self._command,
                env=self._env,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        return self._process

    async def reason_of_death(self) -> str:
        """Say why the process no longer answers. Kills it if it still runs."""
        process, self._process = self._process, None
        if process is None:
            return "the worker process could not be started"
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        code = process.returncode
        if code is None:
            _kill(process)
            return "the worker process stopped answering"
        if code < 0:
            return f"the worker process was ended by signal {-code} (out of memory?)"
        return f"the worker process exited with code {code}"

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


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it exited in the meantime
        process.kill()
