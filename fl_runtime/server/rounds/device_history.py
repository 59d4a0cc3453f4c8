"""What devices did in finished rounds: who took part, who keeps failing, how large changes were."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Sequence

from fl_runtime.run.messages import layout_of
from fl_runtime.run.records import DeviceRow, RoundRecord
from fl_runtime.server.grid.phase_policy import Expectation
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
        self._reports: dict[str, _Reports] = collections.defaultdict(_Reports)

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
        for kind in {row.kind for row in record.devices}:
            self._reports[kind].add([row for row in record.devices if row.kind == kind])

    def excluded(self, number: int) -> set[str]:
        """Devices that round ``number`` does not ask."""
        return {device for device, until in self._excluded_until.items() if number <= until}

    def norm_limit(self) -> float:
        """Largest L2 norm of a change that counts; 0 while no norm is known."""
        return NORM_FACTOR * max(self._norms) if self._norms else 0.0

    def expectations(self) -> dict[str, Expectation]:
        """What the next replies are expected to report, by the kind of the phase."""
        return {kind: reports.expectation() for kind, reports in self._reports.items()}


class _Reports:
    """What devices have reported in one kind of phase."""

    def __init__(self) -> None:
        self._layouts: dict[str, frozenset[tuple[str, int]]] = {}
        self._examples: dict[str, float] = {}
        self._medians: collections.deque[float] = collections.deque(maxlen=NORM_ROUNDS)

    def add(self, rows: Sequence[DeviceRow]) -> None:
        """Add one round's phase."""
        for row in rows:
            # Those that were refused for their metrics have a vote too: the first round's majority
            # must not decide for good.
            if row.metrics and (row.status == "ok" or row.code == "metrics"):
                self._layouts[row.device] = frozenset(layout_of(row.metrics).items())
        counted = [row for row in rows if row.status == "ok" and row.examples > 0]
        for row in counted:
            known = self._examples.get(row.device, 0.0)
            self._examples[row.device] = max(known, row.examples)
        if counted:
            self._medians.append(statistics.median(row.examples for row in counted))

    def expectation(self) -> Expectation:
        """Of the next phase."""
        votes = collections.Counter(self._layouts.values())
        return Expectation(
            layout=dict(votes.most_common(1)[0][0]) if votes else None,
            median_examples=max(self._medians, default=0.0),
            examples=dict(self._examples),
        )
