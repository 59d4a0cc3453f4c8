"""The port :class:`~fl_runtime.run.concurrency.Concurrency` on strands."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from pipelines.chaos.simulation.scheduler import Killed, Scheduler, Strand

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class _Mailbox:
    """Items from many strands to one."""

    def __init__(self, owner: Strand) -> None:
        self._owner = owner
        self._waits = False
        self._items: collections.deque[Any] = collections.deque()

    def put(self, item: Any) -> None:
        """Leave an item, and wake the owner if it waits."""
        self._items.append(item)
        if self._waits:
            self._waits = False
            self._owner.wake()

    def get(self) -> Any:
        """The next item, as soon as there is one."""
        while not self._items:
            self._waits = True
            self._owner.park()
        return self._items.popleft()


class Strands:
    """Calls side by side, in an order that the seed decides."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def each(
        self, call: Callable[[Item], Answer], items: Iterable[Item], at_once: int
    ) -> Iterator[Answer]:
        """See the port."""
        scheduler, owner = self._scheduler, self._scheduler.current()
        waiting = collections.deque(items)
        count, box = len(waiting), _Mailbox(owner)

        def work() -> None:
            while waiting:
                box.put(_outcome(call, waiting.popleft()))

        for _ in range(min(at_once, count)):
            scheduler.spawn(owner.process, work)
        for _ in range(count):
            answer, error = box.get()
            if error is not None:
                raise error
            yield answer

    def merged(self, streams: Sequence[Iterator[Item]]) -> Iterator[Item]:
        """See the port."""
        scheduler, owner = self._scheduler, self._scheduler.current()
        box = _Mailbox(owner)
        for stream in streams:
            scheduler.spawn(owner.process, _drain(stream, box))
        running = len(streams)
        while running:
            item, error, over = box.get()
            running -= over
            if error is not None:
                raise error
            if not over:
                yield item

    def background(self, name: str) -> Executor:  # the port's
        """See the port."""
        return _Background(self._scheduler)

    def aside(self, call: Callable[[], None]) -> None:
        """See the port."""
        self._scheduler.spawn(self._scheduler.current().process, call)


def _outcome(call: Callable[[Item], Answer], item: Item) -> tuple[Answer | None, Exception | None]:
    try:
        return call(item), None
    except Exception as error:  # noqa: BLE001  # raised where the answer is waited for
        return None, error


def _drain(stream: Iterator[Item], box: _Mailbox) -> Callable[[], None]:
    def drain() -> None:
        try:
            for item in stream:
                box.put((item, None, False))
            box.put((None, None, True))
        except Exception as error:  # noqa: BLE001  # raised where the items are waited for
            box.put((None, error, True))

    return drain


class _Awaited(Future[Any]):
    """A future that a strand can wait for."""

    scheduler: Scheduler

    def result(self, timeout: float | None = None) -> Any:
        """As in the base class; waits in virtual time."""
        while not self.done():
            self.scheduler.sleep(0.05)
        return super().result(timeout)


class _Background(Executor):
    """One strand that makes calls in order, and ends when there is none."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._calls: collections.deque[tuple[_Awaited, Callable[[], Any]]] = collections.deque()
        self._works = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As in the base class."""
        future = _Awaited()
        future.scheduler = self._scheduler
        self._calls.append((future, lambda: fn(*args, **kwargs)))
        if not self._works:
            self._works = True
            self._scheduler.spawn(self._scheduler.current().process, self._work)
        return future

    def _work(self) -> None:
        while self._calls:
            future, call = self._calls.popleft()
            try:
                future.set_result(call())
            except Killed:
                raise
            except Exception as error:  # noqa: BLE001  # raised by result()
                future.set_exception(error)
        self._works = False
