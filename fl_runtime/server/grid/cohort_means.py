"""What counts of a cohort's mean.

A proxy folds; what its mean weighs does not come from it. The server computes weight and metrics
from the results that it has judged, so a proxy claims no more than its devices may.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.protocol.errors import ProtocolError
from edge.protocol.records import Bounds, Records, ValueMap, bounds_of, decode_records
from fl_runtime.cohort.aggregation import WeightedMean
from fl_runtime.cohort.updates import check_arrays, check_finite
from fl_runtime.run.messages import DeviceResult, Folded, PhaseRequest


@dataclass(frozen=True)
class CohortMean:
    """The weighted mean of those updates of a cohort that count, as one update."""

    records: Records


def mean_of(mean: Folded, request: PhaseRequest, accepted: Sequence[DeviceResult]) -> CohortMean:
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
