"""Which devices a round may ask, and the wait until there are enough of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fl_runtime.run.cohorts import Member
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.ports import Clock, Sleep
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.rounds.device_history import DeviceHistory
from fl_runtime.server.rounds.selection import without_excluded

POLL_SECONDS = 2.0
"""Pause between two reads of the devices table."""


@dataclass(frozen=True, kw_only=True)
class Availability:
    """Finds the devices that a round may ask."""

    spec: RunSpec
    history: DeviceHistory
    eligible: Callable[[], set[str]] | None
    """Names of the devices that meet the run's requirements now; None when it has none."""
    stopped: Callable[[], bool]
    clock: Clock
    sleep: Sleep

    def wait(self, members: Sequence[Member], number: int, at_least: int) -> list[Member]:
        """Members that meet the run's requirements and do not keep failing.

        Raises:
            RunFailed: fewer than ``at_least`` of them met the requirements until the deadline.
        """
        deadline = self.clock() + self.spec.deadline_seconds
        while True:
            ready = self._ready(members)
            if len(ready) >= at_least:
                return without_excluded(ready, self.history, number, at_least)
            if self.clock() >= deadline or self.stopped():
                raise RunFailed(
                    "too-few-nodes",
                    f"Round {number} wants at least {at_least} devices, and {len(ready)} of the "
                    f"run's {len(members)} met its requirements after "
                    f"{self.spec.deadline_seconds:.0f} s.",
                )
            self.sleep(POLL_SECONDS)

    def _ready(self, members: Sequence[Member]) -> Sequence[Member]:
        if self.eligible is None:
            return members
        eligible = self.eligible()
        return [member for member in members if member.device in eligible]
