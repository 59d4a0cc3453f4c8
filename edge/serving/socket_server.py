"""The agent's socket for predictions: a Unix socket in the device's folder, a JSON object a line,
for programs in any language.

    {"inputs": [[8.2, 210.0]], "truth": [1250.0]}  ->  {"model_version": "wind-farm/3", "outputs":
    [1190.5]}

The model runs in a process of its own, started by the first request. Only the agent's user may
connect.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path

from edge.logs import event
from edge.serving.model import refusal
from edge.training.worker_process import FramedProcess

logger = logging.getLogger(__name__)

SOCKET = "predict.sock"
LINE_LIMIT = 2**20
"""Bytes of a request."""
CONNECTIONS = 16
REQUEST_SECONDS = 30.0
PATH_LIMIT = 100
"""Bytes of a socket's path; the kernel takes 107."""


class PredictSocket:
    """Serves until cancelled."""

    def __init__(self, home: Path, env: dict[str, str]) -> None:
        self._path = home / SOCKET
        self._process = FramedProcess(("edge.serving.model", str(home)), env)
        self._turn = asyncio.Lock()
        self._open = 0

    async def run(self) -> None:
        """Where there can be no socket, that is said once, and predictions are had in-process only."""
        if len(os.fsencode(self._path)) > PATH_LIMIT:
            event(
                logger,
                "no-socket",
                logging.WARNING,
                path=str(self._path),
                reason="the path is too long for a Unix socket",
            )
            return
        mask = os.umask(0o177)
        try:
            self._path.unlink(missing_ok=True)
            server = await asyncio.start_unix_server(self._serve, str(self._path), limit=LINE_LIMIT)
        except OSError as error:  # a file system without sockets: the device trains all the same
            event(logger, "no-socket", logging.WARNING, path=str(self._path), reason=str(error))
            return
        finally:
            os.umask(mask)
        try:
            await server.serve_forever()
        finally:
            await self._process.stop()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            while self._open <= CONNECTIONS and (line := await reader.readline()):
                writer.write(await self._answer(line) + b"\n")
                await writer.drain()
        except ValueError:  # asyncio's word for a line beyond the limit
            writer.write(refusal("too-long", f"A request may have {LINE_LIMIT} bytes.") + b"\n")
        except ConnectionError:
            pass  # nobody to tell
        finally:
            self._open -= 1
            with contextlib.suppress(ConnectionError):
                writer.close()
                await writer.wait_closed()

    async def _answer(self, line: bytes) -> bytes:
        """One request after the other; a process that dies or hangs is replaced by the next
        request.
        """
        async with self._turn:
            try:
                return await asyncio.wait_for(self._process.exchange(line), REQUEST_SECONDS)
            except TimeoutError:
                await self._process.stop()
                return refusal(
                    "deadline", f"The app's predict did not answer within {REQUEST_SECONDS:.0f} s."
                )
            except (ConnectionError, asyncio.IncompleteReadError):
                return refusal("predict", await self._process.reason_of_death())
