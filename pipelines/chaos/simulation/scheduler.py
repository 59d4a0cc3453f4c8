"""The scheduler: virtual time, one event after the other, in an order that a seed decides.

Synchronous code runs on *strands* (greenlets): a strand gives control away only where it sleeps or
waits, so those are the points at which others run and at which a process can be killed.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable

from greenlet import getcurrent, greenlet

Call = Callable[[], None]


class Killed(BaseException):
    """Unwinds the strands of a process that was killed. Nobody catches it."""


class Process:
    """What is killed or paused as one: a server, or a device between two boots."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused_until = 0.0
        self.steps = 0
        """Points at which it could have been killed, so far."""
        self.on_step: Callable[[int], None] = lambda _: None
        """Called at each such point with its number."""
        self._strands: list[Strand] = []

    def add(self, strand: Strand) -> None:
        """A strand of this process."""
        self._strands.append(strand)

    def step(self) -> None:
        """Pass a point at which the process can be killed; raises Killed if it is."""
        if self.alive:
            self.steps += 1
            self.on_step(self.steps)
        if not self.alive:
            raise Killed

    def kill(self) -> None:
        """Kill it. Its strands unwind, and can do nothing to the world while they do."""
        self.alive = False
        for strand in self._strands:
            strand.wake()


class Scheduler:
    """One simulated world's time and chance."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"simulation {seed}")  # noqa: S311  # chance
        self.now = 0.0
        self.events = 0
        self.strand: Strand | None = None
        """The strand that runs now."""
        self._queue: list[tuple[float, float, int, Call]] = []
        self._count = 0
        self._trace = hashlib.sha256()
        self._hub = getcurrent()

    def at(self, seconds: float, call: Call) -> None:
        """Call after so many seconds. Chance orders what happens at the same time."""
        self._count += 1
        when = self.now + max(seconds, 0.0)
        heapq.heappush(self._queue, (when, self.rng.random(), self._count, call))

    def run(self, until: Callable[[], bool], limit: float) -> None:
        """Run events until a condition holds, nothing is left to happen, or time is up."""
        while self._queue and not until():
            when, _, _, call = heapq.heappop(self._queue)
            if when > limit:
                return
            self.now = when
            self.events += 1
            call()

    def note(self, *words: object) -> None:
        """Add to the trace, whose digest tells whether two histories are the same."""
        line = " ".join([f"{self.now:.6f}", *map(str, words)])
        self._trace.update(f"{line}\n".encode())

    def digest(self) -> str:
        """The digest of all that was noted."""
        return self._trace.hexdigest()

    def spawn(self, process: Process, call: Call) -> Strand:
        """Run a call of a process on a strand of its own."""
        strand = Strand(self, process, call, self._hub)
        process.add(strand)
        strand.wake()
        return strand

    def current(self) -> Strand:
        """The strand that runs now; the product's synchronous code always has one."""
        if self.strand is None:
            raise RuntimeError("synchronous code outside a strand")
        return self.strand

    def sleep(self, seconds: float) -> None:
        """Let the current strand sleep: :data:`~fl_runtime.run.ports.Sleep`."""
        strand = self.current()
        strand.process.step()
        self.at(seconds, strand.resume)
        strand.park()

    def time(self) -> float:
        """Seconds: :data:`~fl_runtime.run.ports.Clock`."""
        return self.now


class Strand:
    """A thread of synchronous code, as a greenlet."""

    def __init__(self, scheduler: Scheduler, process: Process, call: Call, hub: greenlet) -> None:
        self.process = process
        self._scheduler = scheduler
        self._call = call
        self._hub = hub
        self._greenlet = greenlet(self._run, parent=hub)

    def wake(self) -> None:
        """Resume as soon as chance wants."""
        self._scheduler.at(0.0, self.resume)

    def resume(self) -> None:
        """Run on, called by the scheduler; what has ended stays so."""
        if self._greenlet.dead:
            return
        scheduler = self._scheduler
        pause = self.process.paused_until - scheduler.now
        if pause > 0 and self.process.alive:
            scheduler.at(pause, self.resume)
            return
        scheduler.strand = self
        self._greenlet.switch()
        scheduler.strand = None

    def park(self) -> None:
        """Give control away until somebody resumes this strand; raises Killed."""
        self._hub.switch()
        self.process.step()

    def _run(self) -> None:
        try:
            if self.process.alive:
                self._call()
        except Killed:
            return
