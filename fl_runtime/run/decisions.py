"""What a round's decisions are made from, beside the metrics that Flower's own mean reports.

Decisions are the target, the best round, the pipeline's condition and the comparison with the
champion.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from fl_runtime.run.messages import EXAMPLES, DeviceResult
from fl_runtime.run.robust import DISPROPORTION, LARGEST, MIN_VALUES, deviations, robust_mean

_REPORTED_ALIKE = 1e-6
"""Relative difference of two means that were added up in another order."""
_OUTLIERS_NAMED = 50


def robust_metrics(
    reported: Mapping[str, Any], results: Iterable[DeviceResult]
) -> tuple[dict[str, float], dict[str, list[str]]]:
    """(robust means, devices out of all proportion), each by metric.

    Args:
        reported: The round's evaluation, as the strategy aggregated it.
        results: The results of its evaluate phases.

    Only metrics that are the devices' weighted mean have a robust one: an app may aggregate
    otherwise.
    """
    valid = [result for result in results if result.status == "ok"]
    means: dict[str, float] = {}
    outliers: dict[str, list[str]] = {}
    for name, value in reported.items():
        told = [result for result in valid if _is_number(result.metrics.get(name))]
        if name == EXAMPLES or not _is_number(value) or len(told) < MIN_VALUES:
            continue
        values = [float(result.metrics[name]) for result in told]
        weights = [_examples(result) for result in told]
        if not _is_mean(float(value), values, weights):
            continue
        usable = [at for at, item in enumerate(values) if abs(item) <= LARGEST]
        if not usable:
            continue
        finite = [values[at] for at in usable]
        means[name] = robust_mean(finite, [weights[at] for at in usable])
        far = dict(zip(usable, deviations(finite), strict=True))
        named = [
            told[at].device for at in range(len(told)) if far.get(at, math.inf) > DISPROPORTION
        ]
        if named:
            outliers[name] = sorted(named)[:_OUTLIERS_NAMED]
    return means, outliers


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _examples(result: DeviceResult) -> float:
    told = result.examples or result.metrics.get(EXAMPLES, 0.0)
    return min(float(told), LARGEST) if _is_number(told) and told > 0 else 0.0


def _is_mean(reported: float, values: list[float], weights: list[float]) -> bool:
    if not math.isfinite(reported):  # a sum that overflowed
        return True
    total = sum(weights)
    if total <= 0:
        return False
    mean = sum(value * (weight / total) for value, weight in zip(values, weights, strict=True))
    return math.isclose(mean, reported, rel_tol=_REPORTED_ALIKE, abs_tol=1e-12)
