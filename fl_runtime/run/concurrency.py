"""Calls side by side: the port :class:`Concurrency`, and its implementation with threads.

The server and its cohorts start threads only by this port, so that a simulation can put a seeded
scheduler in their place (:mod:`pipelines.chaos.simulation`).
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")
LOOK_SECONDS = 0.5
"""How often a stream whose items nobody takes looks whether anybody still reads them."""


class Concurrency(Protocol):
    """Port: runs calls at the same time."""

    def each(
        self, call: Callable[[Item], Answer], items: Iterable[Item], at_once: int
    ) -> Iterator[Answer]:
        """Call with each item, ``at_once`` at a time; yield the answers as they are ready."""

    def merged(self, streams: Sequence[Iterator[Item]]) -> Iterator[Item]:
        """Consume all streams at the same time; yield their items as they come.

        An exception in one of them is raised here.
        """

    def background(self, name: str) -> Executor:
        """An executor that makes one call after the other, beside its caller."""

    def aside(self, call: Callable[[], None]) -> None:
        """Make a call beside the caller, which does not wait for it. It must not raise."""


class Threads:
    """:class:`Concurrency` with threads."""

    def each(
        self, call: Callable[[Item], Answer], items: Iterable[Item], at_once: int
    ) -> Iterator[Answer]:
        """See :meth:`Concurrency.each`. No more than ``at_once`` answers wait to be taken: they may
        be large.
        """
        waiting: list[Future[Answer]] = []
        with ThreadPoolExecutor(at_once, thread_name_prefix="each") as pool:
            for item in items:
                waiting.append(pool.submit(call, item))
                if len(waiting) == at_once:
                    yield _first_ready(waiting)
            while waiting:
                yield _first_ready(waiting)

    def merged(self, streams: Sequence[Iterator[Item]]) -> Iterator[Item]:
        """See :meth:`Concurrency.merged`. A single stream needs no thread. A few items wait to be
        taken: they may be parts of models.
        """
        if len(streams) == 1:
            yield from streams[0]
            return
        items: queue.Queue[tuple[Item] | BaseException | None] = queue.Queue(len(streams))
        unread = threading.Event()

        def hand(item: tuple[Item] | BaseException | None) -> None:
            while not unread.is_set():
                with contextlib.suppress(queue.Full):
                    items.put(item, timeout=LOOK_SECONDS)
                    return

        def drain(stream: Iterator[Item]) -> None:
            try:
                for item in stream:  # to its end, even when nobody reads what comes of it
                    hand((item,))
            except BaseException as error:  # noqa: BLE001  # raised again below
                hand(error)
            finally:
                hand(None)  # this stream is done

        # Daemons: a stream that hangs must not keep a stopped process alive.
        for stream in streams:
            threading.Thread(target=drain, args=(stream,), daemon=True).start()
        running = len(streams)
        try:
            while running:
                item = items.get()
                if item is None:
                    running -= 1
                elif isinstance(item, BaseException):
                    raise item
                else:
                    yield item[0]
        finally:
            unread.set()

    def background(self, name: str) -> Executor:
        """See :meth:`Concurrency.background`."""
        return ThreadPoolExecutor(1, thread_name_prefix=name)

    def aside(self, call: Callable[[], None]) -> None:
        """See :meth:`Concurrency.aside`."""
        threading.Thread(target=call, daemon=True).start()


def _first_ready(waiting: list[Future[Answer]]) -> Answer:
    """Wait for an answer and take it; of several, that of the earliest call."""
    wait(waiting, return_when=FIRST_COMPLETED)
    at = next(at for at, future in enumerate(waiting) if future.done())
    return waiting.pop(at).result()


THREADS = Threads()
"""The default: it has no state."""
