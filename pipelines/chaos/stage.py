"""A run under way, as faults see and act on it."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

import psutil

from fl_runtime.run.state import TERMINAL_STATES, RunState, RunTable
from pipelines.chaos.world import HOSTILE, World

SERVER, PROXY = "fl_runtime.server", "fl_runtime.proxy"
"""Modules that the run's tasks run."""


@dataclass
class Stage:
    """A run, the world that it runs in, and the seed's random numbers."""

    world: World
    run: str
    pipeline: str
    """ARN of the pipeline execution."""
    table: RunTable
    rng: random.Random
    notes: list[str] = field(default_factory=list)
    """What was done to the run, one sentence each."""

    def note(self, text: str) -> None:
        """Record what is done to the run."""
        self.notes.append(text)

    def state(self) -> RunState | None:
        """The run's item in the runs table."""
        return self.table.get(self.run)

    def has_server(self) -> bool:
        """Whether the run's server listens, or has listened."""
        state = self.state()
        return state is not None and (bool(state.server) or state.state in TERMINAL_STATES)

    def has_ended(self) -> bool:
        """Whether the run is in a terminal state."""
        state = self.state()
        return state is not None and state.state in TERMINAL_STATES

    def wait_for_end(self, seconds: float = 25.0) -> None:
        """Wait until the run has ended, at most so long (on an idle machine)."""
        deadline = time.monotonic() + self.patience(seconds)
        while not self.has_ended() and time.monotonic() < deadline:
            time.sleep(0.2)

    def task(self, module: str, seconds: float = 8.0, other_than: int = 0) -> psutil.Process | None:
        """One of the run's tasks, if there is one in time; ``other_than``: not this process id."""
        deadline = time.monotonic() + self.patience(seconds)
        while time.monotonic() < deadline and not self.has_ended():
            tasks = self.world.tasks(module, self.run)
            found = [process for process in tasks if process.pid != other_than]
            if found:
                return self.rng.choice(found)
            time.sleep(0.1)
        return None

    def patience(self, seconds: float) -> float:
        """How long to wait, on this machine now, for what takes ``seconds`` on an idle one."""
        return seconds * self.world.slowness.now()

    def honest_device(self) -> int:
        """Index of a random honest device."""
        return self.rng.randrange(HOSTILE)

    def random_duration(self, low: float, high: float) -> float:
        """Seconds between two bounds."""
        return self.rng.uniform(low, high)
