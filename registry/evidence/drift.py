"""Drift of a model's inputs and residuals, from the statistics in the devices' heartbeats.

Each device reports the moments of two windows of predictions: its first with the model, and its
latest.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping

from edge.protocol.messages import Moments, Served, Serving
from fl_runtime.run.devices import DeviceStatus
from registry.evidence.model import Drift, FeatureShift

ENOUGH = 50
"""Smallest number of predictions in a window that counts."""
FAR = 10.0
"""Largest shift that is reported, in standard deviations. An input that never varied has no scale,
and any change of it would be infinite.
"""
DRIFTED = 1.0
"""Shift in standard deviations beyond which a device counts as drifted."""


def drift_of(servings: Mapping[str, Serving]) -> Drift:
    """The drift of a fleet. ``servings``: each device's statistics, by name."""
    by_feature: dict[str, list[tuple[float, float]]] = {}
    scores, residuals = [], []
    for serving in servings.values():
        judged = [served for served in serving.inputs if _enough(served)]
        if not judged:
            continue
        shifts = [shift(served.first, served.recent) for served in judged]
        for served, by in zip(judged, shifts, strict=True):
            by_feature.setdefault(served.name, []).append((by, _spread(served)))
        scores.append(max(shifts))
        if (residual := _residual(serving)) is not None:
            residuals.append(residual)
    features = [
        FeatureShift(
            feature=name,
            shift=statistics.median(by for by, _ in found),
            spread=statistics.median(spread for _, spread in found),
        )
        for name, found in by_feature.items()
    ]
    return Drift(
        devices=len(scores),
        drifted=sum(score > DRIFTED for score in scores),
        score=statistics.median(scores) if scores else 0.0,
        features=sorted(features, key=lambda item: -item.shift),
        residual=statistics.median(residuals) if residuals else None,
        predictions=sum(serving.predictions for serving in servings.values()),
    )


def servings(devices: Iterable[DeviceStatus], model: str = "") -> dict[str, Serving]:
    """The statistics that devices report of the model they use, by device name; only of the version
    ``model`` where it is given.
    """
    return {
        status.device: beat.serving
        for status in devices
        if (beat := status.heartbeat) is not None
        and beat.serving is not None
        and model in ("", beat.model)
    }


def shift(first: Moments, recent: Moments) -> float:
    """Difference of the means in standard deviations of the first window (Glass's delta), at most
    :data:`FAR`.

    If the input did not vary in the first window, the latest one gives the scale: a flag that is
    rarely set is no drift.
    """
    difference, scale = abs(recent.mean - first.mean), first.std or recent.std
    if difference <= 1e-9 * abs(first.mean):  # rounding
        return 0.0
    return min(FAR, difference / scale) if scale > 0 else FAR


def _residual(serving: Serving) -> float | None:
    """Ratio of the residuals' root mean squares, latest to first; None where it is unknown."""
    residuals = serving.residuals
    if residuals is None or not _enough(residuals):
        return None
    first = _root_mean_square(residuals.first)
    return _root_mean_square(residuals.recent) / first if first > 0 else None


def _spread(served: Served) -> float:
    return min(FAR, served.recent.std / served.first.std) if served.first.std > 0 else 1.0


def _root_mean_square(moments: Moments) -> float:
    return math.hypot(moments.mean, moments.std)


def _enough(served: Served) -> bool:
    return min(served.first.count, served.recent.count) >= ENOUGH
