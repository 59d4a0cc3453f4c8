"""Which results of a phase count, judged over those of all cohorts.

What a majority of devices does is usual. A cohort alone cannot tell: a few devices may be most of
it. See decision 25.
"""

from __future__ import annotations

import collections
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from fl_runtime.run.messages import DeviceResult, layout_of, mismatched_metrics
from fl_runtime.server.grid.phase_policy import Expectation, PhasePolicy
from fl_runtime.server.grid.requests import NORM_FACTOR, weight_limit

MIN_UPDATES = 3
"""A phase with fewer updates has no outlier: two cannot tell which of them is one."""

_Layout = frozenset[tuple[str, int]]


@dataclass(frozen=True)
class Reviewer:
    """Judges one phase."""

    kind: str
    policy: PhasePolicy
    weight_factor: float
    """The run's ``weight_limit``."""

    def review(self, results: Sequence[DeviceResult]) -> list[DeviceResult]:
        """The results of all devices, in the same order; what must not count is an error."""
        valid = [result for result in results if result.status == "ok"]
        if not self.policy.checked or not valid:
            return list(results)
        usual = self._usual_layout(valid)
        enough = len(valid) >= MIN_UPDATES
        norm = 0.0
        if enough and self.policy.norm_limit <= 0:
            norm = NORM_FACTOR * statistics.median(result.norm for result in valid)
        # Of one or two devices none is usual, but earlier rounds may tell.
        median = self._expected.median_examples
        if enough:
            median = statistics.median(result.examples for result in valid)
        return [self._judged(result, usual, norm, median) for result in results]

    def _judged(
        self, result: DeviceResult, usual: _Layout, norm: float, median: float
    ) -> DeviceResult:
        if result.status != "ok":
            return result
        if self.kind not in self.policy.any_shape and _layout(result) != usual:
            return mismatched_metrics(result)
        if 0 < norm < result.norm:
            reason = f"the update's change is above {norm:.3g}, {NORM_FACTOR:g} times the median's"
            return _refused(result, "norm", reason)
        limit = weight_limit(self.weight_factor, median, self._expected.examples.get(result.device))
        if 0 < limit < result.examples:
            reason = (
                f"it reports {result.examples:.6g} examples, where at most {limit:.6g} are "
                "plausible (--weight-limit)"
            )
            return _refused(result, "weight", reason)
        return result

    def _usual_layout(self, valid: Sequence[DeviceResult]) -> _Layout:
        """The metrics of most devices; of equally many, those that earlier rounds had."""
        votes = collections.Counter(_layout(result) for result in valid)
        before = frozenset((self._expected.layout or {}).items())
        return max(votes, key=lambda layout: (votes[layout], layout == before, sorted(layout)))

    @property
    def _expected(self) -> Expectation:
        return self.policy.expected.get(self.kind, Expectation())


def _layout(result: DeviceResult) -> _Layout:
    return frozenset(layout_of(result.metrics).items())


def _refused(result: DeviceResult, code: str, reason: str) -> DeviceResult:
    return msgspec.structs.replace(result, status="error", code=code, reason=reason)
