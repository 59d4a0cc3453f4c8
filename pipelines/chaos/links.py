"""A TCP proxy on loopback that can refuse, delay, throttle and cut the connections through it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

CHUNK = 16_384
"""Bytes that are forwarded at once."""


@dataclass(frozen=True, kw_only=True)
class LinkCondition:
    """How a link behaves; the defaults are a good link."""

    refuses: bool = False
    """New connections are refused."""
    delay: float = 0.0
    """Seconds that each chunk waits."""
    rate: float = 0.0
    """Bytes a second; 0: no limit."""
    breaks_after: int = 0
    """Bytes after which a connection breaks; 0: never."""


GOOD = LinkCondition()


class Link:
    """Forwards connections to one local port, in a thread from :meth:`start` to :meth:`stop`."""

    def __init__(self) -> None:
        self.port = 0
        """Where it listens."""
        self.upstream = 0
        """The port that it forwards to."""
        self.condition = GOOD
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    def start(self) -> None:
        """Listen on a free port."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def stop(self) -> None:
        """Close the port and all connections."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def drop(self) -> None:
        """Break all open connections."""
        self._loop.call_soon_threadsafe(self._abort)

    @contextlib.contextmanager
    def degraded(self, condition: LinkCondition) -> Iterator[None]:
        """Put the link in a condition while the block lasts.

        A condition that refuses connections breaks the open ones too.
        """
        self.condition = condition
        if condition.refuses:
            self.drop()
        try:
            yield
        finally:
            self.condition = GOOD

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._abort()
        tasks = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _abort(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.condition.refuses:
            writer.transport.abort()
            return
        try:
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, upstream}
        self._open |= ends
        try:
            await asyncio.gather(
                self._forward(reader, upstream, ends), self._forward(upstream_reader, writer, ends)
            )
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()

    async def _forward(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        ends: set[asyncio.StreamWriter],
    ) -> None:
        """Copy one direction of a connection; ``ends`` are both of its sockets."""
        passed = 0
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                condition = self.condition
                passed += len(data)
                if condition.breaks_after and passed > condition.breaks_after:
                    for end in ends:
                        end.transport.abort()
                    return
                transfer = len(data) / condition.rate if condition.rate else 0.0
                if condition.delay or transfer:
                    await asyncio.sleep(condition.delay + transfer)
                sink.write(data)
                await sink.drain()
            # The other direction may go on: a half-closed connection is legal.
            if sink.can_write_eof():
                sink.write_eof()
