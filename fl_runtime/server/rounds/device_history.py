"""What devices did in finished rounds: who took part, who keeps failing, how large changes were."""

from __future__ import annotations

import collections
import statistics

from fl_runtime.run.records import RoundRecord
from fl_runtime.server.grid.requests import NORM_FACTOR

CONSECUTIVE_FAILURES = 3
"""A device that fails in this many rounds in a row is excluded."""
EXCLUDED_ROUNDS = 5
"""For how many rounds it is excluded; then it gets one more chance."""
NORM_ROUNDS = 3
"""The usual norm of a change is that of the last rounds, this many."""


class DeviceHistory:
    """A pure function of round records, so a resumed run has the same history."""

    def __init__(self) -> None:
        self.times_trained: collections.Counter[str] = collections.Counter()
        self._failures: collections.Counter[str] = collections.Counter()
        self._excluded_until: dict[str, int] = {}
        self._norms: collections.deque[float] = collections.deque(maxlen=NORM_ROUNDS)

    def add(self, record: RoundRecord) -> None:
        """Add a finished round."""
        asked = {row.device for row in record.devices if row.status in ("ok", "error")}
        failed = {row.device for row in record.devices if row.status == "error"}
        self.times_trained.update(
            {row.device for row in record.devices if row.kind.startswith("train")}
        )
        for device in asked - failed:
            self._failures.pop(device, None)
        for device in failed:
            self._failures[device] += 1
            if self._failures[device] >= CONSECUTIVE_FAILURES:
                self._excluded_until[device] = record.round + EXCLUDED_ROUNDS
        norms = [row.norm for row in record.devices if row.status == "ok" and row.norm > 0]
        if norms:
            self._norms.append(statistics.median(norms))

    def excluded(self, number: int) -> set[str]:
        """Devices that round ``number`` does not ask."""
        return {device for device, until in self._excluded_until.items() if number <= until}

    def norm_limit(self) -> float:
        """Largest L2 norm of a change that counts; 0 while no norm is known."""
        return NORM_FACTOR * max(self._norms) if self._norms else 0.0
