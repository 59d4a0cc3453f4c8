"""Folds a cohort's updates into one weighted mean as they arrive."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from edge.protocol.errors import ProtocolError
from edge.protocol.records import Records
from fl_runtime.aggregation.weighted_mean import WeightedMean
from fl_runtime.cohort.updates import fault
from fl_runtime.run.messages import (
    PART_BYTES,
    DeviceResult,
    Folded,
    FoldedPart,
    PhaseRequest,
    Target,
    layout_of,
    mismatched_metrics,
)


def is_expected(request: PhaseRequest, result: DeviceResult, target: Target) -> bool:
    """Whether an update may be folded before the server has seen those of all cohorts: it reports
    the metrics that earlier rounds had, and no more examples than they make plausible.
    """
    if request.layout is None or layout_of(result.metrics) != request.layout:
        return False
    return not 0 < target.weight_limit < result.examples


class Fold:
    """The weighted mean of updates with one layout: takes the memory of one model's sums."""

    def __init__(self, phase: str, weighted_by: str) -> None:
        self._phase = phase
        self._weighted_by = weighted_by
        self._mean = WeightedMean(weighted_by)
        self._devices: list[str] = []

    def add(self, result: DeviceResult, records: Records) -> DeviceResult:
        """Add one checked update; returns its result, a failure when it cannot be averaged."""
        try:
            self._mean.add(records, float(result.metrics[self._weighted_by]))
        except ProtocolError as error:
            if error.code == "metrics":
                return mismatched_metrics(result)
            return replace(result, status="error", code=error.code, reason=str(error))
        except Exception as error:  # noqa: BLE001  # a fault of ours costs one device, not all
            return fault(result, error)
        self._devices.append(result.device)
        return result

    def records(self) -> Records | None:
        """The mean; None when nothing was added."""
        return self._mean.records() if self._devices else None

    def finish(self) -> Iterator[FoldedPart | Folded]:
        """The mean, unless nothing was added; a large one in parts."""
        if not self._devices:
            return
        offset, last = 0, b""
        for part in self._mean.encoded(PART_BYTES):
            if last:
                yield FoldedPart(self._phase, offset, last)
            offset, last = offset + len(last), part
        yield Folded(self._phase, last, self._mean.count, self._devices)
