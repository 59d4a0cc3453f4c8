"""What counts of a cohort's mean.

A proxy folds; what its mean weighs does not come from it. The server computes weight and metrics
from the results that it has judged, so a proxy claims no more than its devices may.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

from edge.protocol.errors import ProtocolError
from edge.protocol.records import Bounds, Records, ValueMap, bounds_of, decode_records
from fl_runtime.aggregation.mapped import map_file
from fl_runtime.aggregation.weighted_mean import WeightedMean
from fl_runtime.cohort.updates import check_arrays, check_finite
from fl_runtime.run.messages import (
    PART_BYTES,
    DeviceResult,
    Folded,
    FoldedPart,
    PhaseRequest,
)


@dataclass(frozen=True)
class ReceivedMean:
    """A proxy's mean as it sent it."""

    records: memoryview
    """The records file."""
    devices: list[str]


class MeanParts:
    """Joins the parts of a cohort's mean in a file: the server holds none of them in memory."""

    def __init__(self) -> None:
        self._file: BinaryIO | None = None

    def add(self, part: FoldedPart) -> None:
        """Add a part. The first one starts anew: another proxy may have taken the cohort over."""
        if part.offset == 0:
            self._file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115  # gone with us
        if self._file is not None:
            self._file.write(part.data)

    def finish(self, mean: Folded) -> ReceivedMean:
        """The whole mean."""
        if self._file is None:
            return ReceivedMean(memoryview(mean.records), mean.devices)
        with self._file as file:
            file.write(mean.records)
            return ReceivedMean(map_file(file), mean.devices)


@dataclass(frozen=True)
class CohortMean:
    """The weighted mean of those updates of a cohort that count, as one update."""

    records: Records


def mean_of(
    mean: ReceivedMean, request: PhaseRequest, accepted: Sequence[DeviceResult]
) -> CohortMean:
    """Check a proxy's mean, and give it its devices' weight and metrics.

    Args:
        mean: What the proxy sent.
        request: What it was asked.
        accepted: The results of its cohort that count.

    Raises:
        ProtocolError: The mean is not one of the accepted updates.

    """
    if sorted(mean.devices) != sorted(result.device for result in accepted):
        raise ProtocolError("foreign", "it is of other devices than those that count")
    bounds = Bounds()
    if request.specs is not None:
        bounds = bounds_of(spec.name for spec in request.specs)
    folded = decode_records(mean.records, bounds)
    if request.specs is not None:
        check_arrays(folded, request.specs)
    check_finite(folded)
    if len(folded.metrics) != 1:
        raise ProtocolError("metrics", f"it holds {len(folded.metrics)} metric records, not one")
    (name,) = folded.metrics
    metrics = _metrics(request.weighted_by, accepted)
    return CohortMean(
        Records(arrays=folded.arrays, metrics={name: metrics}, order=(*folded.arrays, name))
    )


def merged(means: Sequence[CohortMean], weighted_by: str) -> CohortMean:
    """The mean over all cohorts: what a strategy would make of theirs, in one model's memory."""
    if len(means) == 1:
        return means[0]
    total = WeightedMean(weighted_by)
    for mean in means:
        (metrics,) = mean.records.metrics.values()
        total.add(mean.records, float(cast(float, metrics[weighted_by])))
    with tempfile.TemporaryFile() as file:
        for part in total.encoded(PART_BYTES):
            file.write(part)
        return CohortMean(decode_records(map_file(file)))


def _metrics(weighted_by: str, accepted: Sequence[DeviceResult]) -> ValueMap:
    """The devices' mean metrics, and the sum of their weights. Raises ProtocolError."""
    total = WeightedMean(weighted_by)
    for result in accepted:
        weight = result.metrics.get(weighted_by)
        # The examples are what the phase's review has judged.
        if not isinstance(weight, int | float) or not 0 < weight == result.examples:
            raise ProtocolError(
                "examples", f"the result of {result.device} claims {weight!r} {weighted_by}"
            )
        total.add(Records(metrics={"metrics": dict(result.metrics)}), float(weight))
    (metrics,) = total.records().metrics.values()
    return metrics
