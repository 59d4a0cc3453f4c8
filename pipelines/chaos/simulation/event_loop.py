"""An asyncio event loop in virtual time: one for each device, so that one can be killed alone.

Callbacks of one loop run in asyncio's own order; between loops the seed decides. A process can be
killed between any two of them, which is at every ``await``.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from pipelines.chaos.simulation.scheduler import Killed, Process, Scheduler

THREAD_SECONDS = 0.05
"""The longest that a thread's work takes to be done."""


class SimulatedLoop:
    """The part of :class:`asyncio.AbstractEventLoop` that an agent uses."""

    def __init__(self, scheduler: Scheduler, process: Process) -> None:
        self._scheduler = scheduler
        self._process = process
        self._self: Any = self  # asyncio takes any object that has the methods
        self._ready: collections.deque[asyncio.Handle] = collections.deque()
        self._scheduled = False
        self.time = scheduler.time
        self.get_debug = lambda: False  # debug mode reads the real clock
        self.tasks: list[asyncio.Task[Any]] = []
        self.faults: list[str] = []
        """Exceptions that nobody caught."""

    def create_future(self) -> asyncio.Future[Any]:
        """As in asyncio."""
        return asyncio.Future(loop=self._self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """As in asyncio."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self._self, **options)
        self.tasks.append(task)
        return task

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        """As in asyncio."""
        handle = asyncio.Handle(callback, args, self._self, context)
        self._ready.append(handle)
        self._schedule()
        return handle

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """As in asyncio."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """As in asyncio."""
        timer = asyncio.TimerHandle(when, callback, args, self._self, context)

        def fire() -> None:
            if not timer.cancelled():
                self._ready.append(timer)
                self._schedule()

        self._scheduler.at(when - self.time(), fire)
        return timer

    def run_in_executor(
        self, _: None, function: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """As in asyncio; the thread's work is done at once, some moments later: what the loop does
        meanwhile is the seed's choice, and the process can be killed before it and in it.
        """
        future = self.create_future()

        def work() -> None:
            try:
                result = function(*args)
            except Killed:
                return
            except Exception as error:  # noqa: BLE001  # handed to who waits, as by a thread
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        self.call_later(self._scheduler.rng.uniform(0.0, THREAD_SECONDS), work)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what nobody caught."""
        self.faults.append(f"{context.get('message')}: {context.get('exception')!r}")

    async def create_unix_server(self, *args: Any, **options: Any) -> Any:
        """There are no sockets here; an agent does without."""
        raise OSError("no sockets in a simulation")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Called by asyncio; a cancelled timer does not fire."""

    def _schedule(self) -> None:
        if not self._scheduled and self._process.alive:
            self._scheduled = True
            self._scheduler.at(0.0, self._step)

    def _step(self) -> None:
        """Run one callback."""
        self._scheduled = False
        pause = self._process.paused_until - self._scheduler.now
        if pause > 0:
            self._scheduled = True
            self._scheduler.at(pause, self._step)
            return
        try:
            self._process.step()
        except Killed:
            return
        handle = self._ready.popleft()
        if not handle.cancelled():
            asyncio._set_running_loop(self._self)
            try:
                handle._run()
            finally:
                asyncio._set_running_loop(None)
        if self._ready:
            self._schedule()


def start(
    loop: SimulatedLoop, main: Coroutine[Any, Any, None], ended: Callable[[Any], None]
) -> None:
    """Run a coroutine; ``ended`` gets its task when it ends by itself."""
    loop.create_task(main).add_done_callback(ended)


def bury(loop: SimulatedLoop) -> None:
    """Drop what a killed process left suspended, without letting it go on."""
    for task in loop.tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        coroutine: Any = task.get_coro()
        for _ in range(5):  # each ``finally`` that awaits ends one attempt
            with contextlib.suppress(RuntimeError, ValueError):
                coroutine.close()
                break
        if task.done() and not task.cancelled():
            task.exception()  # retrieved: asyncio need not complain
