"""Drift, from what devices say in their heartbeats of the model they use: inputs and residuals, at
first and lately.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping

from edge.protocol.messages import Moments, Served, Serving
from fl_runtime.run.devices import DeviceStatus
from registry.evidence.model import Drift, FeatureShift

ENOUGH = 50
"""Predictions in each of the two windows, below which a device cannot tell."""
FAR = 10.0
"""A shift is not counted beyond so many standard deviations: an input that has never varied has no
scale.
"""
DRIFTED = 1.0


def drift_of(servings: Mapping[str, Serving]) -> Drift:
    """The fleet's drift, by device name."""
    shifts: dict[str, list[float]] = {}
    spreads: dict[str, list[float]] = {}
    scores, residuals = [], []
    for serving in servings.values():
        moved = [
            (served, shift(served.first, served.recent))
            for served in serving.inputs
            if _enough(served)
        ]
        if not moved:
            continue
        for served, by in moved:
            shifts.setdefault(served.name, []).append(by)
            spreads.setdefault(served.name, []).append(_spread(served))
        scores.append(max(by for _, by in moved))
        if (
            serving.residuals is not None
            and _enough(serving.residuals)
            and (first := _rms(serving.residuals.first)) > 0
        ):
            residuals.append(_rms(serving.residuals.recent) / first)
    features = [
        FeatureShift(
            feature=n, shift=statistics.median(shifts[n]), spread=statistics.median(spreads[n])
        )
        for n in shifts
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
    """Difference of the means in standard deviations of the first (Glass's delta), at most
    :data:`FAR`.

    An input that did not vary at first has the latest deviation for a scale: a bit that is seldom
    set is no drift.
    """
    difference, scale = abs(recent.mean - first.mean), first.std or recent.std
    if difference <= 1e-9 * abs(first.mean):
        return 0.0
    return min(FAR, difference / scale) if scale > 0 else FAR


def _spread(served: Served) -> float:
    return min(FAR, served.recent.std / served.first.std) if served.first.std > 0 else 1.0


def _rms(moments: Moments) -> float:
    return math.hypot(moments.mean, moments.std)


def _enough(served: Served) -> bool:
    return min(served.first.count, served.recent.count) >= ENOUGH
