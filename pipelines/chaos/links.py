"""A TCP proxy on loopback that cuts, refuses, delays and throttles what goes through it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

CHUNK = 16_384


@dataclass(frozen=True, kw_only=True)
class Weather:
    """How a link is. Seconds a chunk, bytes a second, bytes after which a connection breaks; 0:
    none of it.
    """

    refuses: bool = False
    delay: float = 0.0
    rate: float = 0.0
    breaks_after: int = 0


FINE = Weather()


class Link:
    """Forwards connections to one local port. Runs in a thread of its own, between :meth:`start`
    and :meth:`stop`.
    """

    def __init__(self) -> None:
        self.port = 0
        self.upstream = 0
        self.weather = FINE
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    def start(self) -> None:
        """Listen on a free port."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def stop(self) -> None:
        """Close everything."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def drop(self) -> None:
        """Break all connections at once."""
        self._loop.call_soon_threadsafe(self._abort)

    @contextlib.contextmanager
    def bad(self, weather: Weather) -> Iterator[None]:
        """Other weather for the time of the block; connections that are open break when it refuses
        new ones.
        """
        self.weather = weather
        if weather.refuses:
            self.drop()
        try:
            yield
        finally:
            self.weather = FINE

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._abort()
        tasks = [
            task for task in asyncio.all_tasks(self._loop) if task is not asyncio.current_task()
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _abort(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.weather.refuses:
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
                self._pump(reader, upstream, ends), self._pump(upstream_reader, writer, ends)
            )
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        ends: set[asyncio.StreamWriter],
    ) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                weather = self.weather
                passed += len(data)
                if weather.breaks_after and passed > weather.breaks_after:
                    for end in ends:
                        end.transport.abort()
                    return
                if weather.delay or weather.rate:
                    await asyncio.sleep(
                        weather.delay + (len(data) / weather.rate if weather.rate else 0.0)
                    )
                sink.write(data)
                await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()
