"""The agent's Unix socket for predictions: one JSON object a line, for programs in any language.

    {"inputs": [[8.2, 210.0]], "truth": [1250.0]}
    -> {"model_version": "wind-farm/3", "outputs": [1190.5]}

The model runs in a subprocess, which the first request starts. Only the agent's user may connect.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path

from edge.frames import FramedProcess
from edge.logs import event
from edge.serving.predictor import refusal

logger = logging.getLogger(__name__)

SOCKET = "predict.sock"
LINE_LIMIT = 2**20
"""Bytes of a request."""
CONNECTIONS = 16
"""Connections at once. A further one takes the place of the one that has been idle longest, or is
closed when all are at work.
"""
REQUEST_SECONDS = 30.0
LINE_SECONDS = 10.0
"""A request's line arrives within this of its first byte, and its answer is read within this."""
PATH_LIMIT = 100
"""Bytes of the socket's path. Linux allows 107 (https://man7.org/linux/man-pages/man7/unix.7.html)."""


class PredictSocket:
    """Serves the socket in a device's folder.

    Args:
        home: The device's folder.
        env: Environment of the prediction subprocess.

    """

    def __init__(self, home: Path, env: dict[str, str]) -> None:
        self._path = home / SOCKET
        self._process = FramedProcess(("edge.serving.predictor", str(home)), env)
        self._turn = asyncio.Lock()
        self._open: set[asyncio.StreamWriter] = set()
        self._idle: dict[asyncio.StreamWriter, None] = {}
        """Those that have no whole request yet, the one that has been so longest first."""

    async def run(self) -> None:
        """Serve until cancelled. Without a socket, log why and return: the device still trains."""
        server = await self._listen()
        if server is None:
            return
        try:
            await server.serve_forever()
        finally:
            await self._process.stop()
            self._path.unlink(missing_ok=True)

    async def _listen(self) -> asyncio.Server | None:
        if len(os.fsencode(self._path)) > PATH_LIMIT:
            self._no_socket("the path is too long for a Unix socket")
            return None
        # By umask and not by a later chmod, which would leave a moment in which all may connect.
        mask = os.umask(0o177)
        try:
            self._path.unlink(missing_ok=True)
            return await asyncio.start_unix_server(self._serve, str(self._path), limit=LINE_LIMIT)
        except OSError as error:  # such as a file system without sockets
            self._no_socket(str(error))
            return None
        finally:
            os.umask(mask)

    def _no_socket(self, reason: str) -> None:
        event(logger, "no-socket", logging.WARNING, path=str(self._path), reason=reason)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS and self._idle:
            self._close_longest_idle()
        self._open.add(writer)
        try:
            while len(self._open) <= CONNECTIONS and (line := await self._line(reader, writer)):
                writer.write(await self._answer(line) + b"\n")
                async with asyncio.timeout(LINE_SECONDS):  # a client that does not read is gone
                    await writer.drain()
        except ValueError:  # readline() raises it for a line above the limit
            writer.write(
                refusal("too-long", f"A request has more than {LINE_LIMIT} bytes.") + b"\n"
            )
        except (ConnectionError, TimeoutError):
            pass  # the client is gone, or stopped in the middle of a line
        finally:
            self._open.discard(writer)
            with contextlib.suppress(ConnectionError, TimeoutError):
                writer.close()
                async with asyncio.timeout(LINE_SECONDS):
                    await writer.wait_closed()

    async def _line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Read a request. Raises TimeoutError when its line does not end."""
        self._idle[writer] = None
        try:
            first = await reader.read(1)
            if first in (b"", b"\n"):
                return first
            async with asyncio.timeout(LINE_SECONDS):
                return first + await reader.readline()
        finally:
            self._idle.pop(writer, None)

    def _close_longest_idle(self) -> None:
        """Make room: half a line, or none, is no reason to keep a request out."""
        writer = next(iter(self._idle))
        del self._idle[writer]
        self._open.discard(writer)
        writer.transport.abort()

    async def _answer(self, line: bytes) -> bytes:
        """Answer one request at a time. The next request replaces a process that died or hangs."""
        async with self._turn:
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    return await self._process.exchange(line)
            except TimeoutError:
                await self._process.stop()
                return refusal(
                    "deadline", f"The app's predict did not answer within {REQUEST_SECONDS:.0f} s."
                )
            except (ConnectionError, asyncio.IncompleteReadError):
                return refusal("predict", await self._process.reason_of_death())
