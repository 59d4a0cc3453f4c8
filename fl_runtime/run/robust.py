"""Means of what devices report about themselves, for decisions: one device must not decide.

A skipped mean. Values far from the median are left out by Hampel's rule, whose breakdown point is
one half (Hampel 1985, https://doi.org/10.1080/00401706.1985.10488027); of the others the mean is
taken, weighted by example counts, of which none counts more than three times the median. Where
no device lies outside, it equals the reported mean.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

LARGEST = 1e200
"""A value beyond it is as good as infinite: times an example count, a sum of many would be."""
MIN_VALUES = 3
"""Of fewer values none is an outlier: two cannot tell which of them is one."""
SKIP_BEYOND = 3.5
"""Scaled deviations from the median beyond which a value does not count in decisions (Iglewicz and
Hoaglin 1993, How to Detect and Handle Outliers).
"""
DISPROPORTION = 10.0
"""The same for a value that is out of all proportion: it is reported, and fails a precheck. Wide,
since devices' data differ.
"""
LARGEST_WEIGHT = 3.0
"""A device's weight in a decision is at most this multiple of the median: devices count their
examples themselves.
"""
MAD_SCALE = 1.4826
"""The median absolute deviation times this estimates a normal distribution's deviation."""
LEAST_SCALE = 0.05
"""The deviation is at least this share of the median: most devices may report the same value."""


def deviations(values: Sequence[float]) -> list[float]:
    """Each value's distance from the median, in deviations of the others."""
    if len(values) < MIN_VALUES:
        return [0.0] * len(values)
    middle = statistics.median(values)
    distances = [abs(value - middle) for value in values]
    scale = max(MAD_SCALE * statistics.median(distances), LEAST_SCALE * abs(middle))
    if scale == 0:
        return [math.inf if distance else 0.0 for distance in distances]
    return [distance / scale for distance in distances]


def robust_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """The skipped mean of finite values, unweighted where no weight is positive. Raises ValueError
    without any.
    """
    if not values:
        raise ValueError("there is no value")
    kept = [at for at, far in enumerate(deviations(values)) if far <= SKIP_BEYOND]
    return capped_mean([values[at] for at in kept], [weights[at] for at in kept])


def capped_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """The mean of finite values, no weight above three times the median; unweighted where none is
    positive.
    """
    if not any(weight > 0 for weight in weights):
        return statistics.fmean(values)
    most = math.inf
    if len(values) >= MIN_VALUES:
        most = LARGEST_WEIGHT * statistics.median(weights)
    used = [min(weight, most) for weight in weights] if most > 0 else weights
    total = math.fsum(used)
    return math.fsum(value * weight for value, weight in zip(values, used, strict=True)) / total
