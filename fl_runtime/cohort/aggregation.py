"""Folding updates as they arrive, and checking each before it counts.

The weighted mean as algebra: ``WeightedMean`` holds (mean, weight); ``a + b`` is associative and
order-free up to rounding, with ``WeightedMean()`` neutral. So cohorts can fold by themselves and
the server folds the cohorts, with the result FedAvg gives over all devices
(McMahan et al. 2017, https://arxiv.org/abs/1602.05629, algorithm 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.protocol.errors import ProtocolError
from edge.protocol.records import ArrayMap, Records, Value, ValueMap
from fl_runtime.run.messages import ArraySpec, array_specs

MAX_EXAMPLES = 1e12
"""No device has more examples than this; a larger count would let one device own the mean."""


@dataclass(frozen=True, kw_only=True)
class UpdateCheck:
    """What an update must satisfy before it may touch the model."""

    weighted_by: str
    """Key of the example count in the metrics."""
    arrays: list[ArraySpec] | None
    """None: any arrays may come (strategies that do not average)."""

    def weight_of(self, records: Records) -> float:
        """The update's weight; raises ProtocolError with the reason code when the update must not
        count.
        """
        if self.arrays is not None:
            self._check_arrays(records)
        for group in records.arrays.values():
            for name, array in group.items():
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise ProtocolError("not-finite", f"array {name[:60]!r} holds NaN or infinity")
        if len(records.metrics) != 1:
            raise ProtocolError(
                "metrics", f"the reply holds {len(records.metrics)} metric records, not one"
            )
        metrics = next(iter(records.metrics.values()))
        for name, value in metrics.items():
            if not all(
                math.isfinite(float(item))
                for item in (value if isinstance(value, list) else [value])
            ):
                raise ProtocolError("not-finite", f"metric {name[:60]!r} is NaN or infinite")
        weight = metrics.get(self.weighted_by)
        if not isinstance(weight, int | float) or not 0 < weight <= MAX_EXAMPLES:
            raise ProtocolError(
                "examples", f"{self.weighted_by!r} is {weight!r}, not a plausible positive number"
            )
        return float(weight)

    def _check_arrays(self, records: Records) -> None:
        if len(records.arrays) != 1:
            raise ProtocolError(
                "arrays", f"the reply holds {len(records.arrays)} array records, not one"
            )
        came, expected = array_specs(next(iter(records.arrays.values()))), self.arrays or []
        if [spec.name for spec in came] != [spec.name for spec in expected]:
            raise ProtocolError("arrays", "the update's array names are not those of the model")
        for got, want in zip(came, expected, strict=True):
            if got.shape != want.shape:
                raise ProtocolError(
                    "shape", f"array {got.name[:60]!r} has shape {got.shape}, not {want.shape}"
                )
            if got.dtype != want.dtype:
                raise ProtocolError(
                    "dtype", f"array {got.name[:60]!r} has dtype {got.dtype}, not {want.dtype}"
                )


def change_norm(before: ArrayMap, after: ArrayMap) -> float:
    """L2 norm of an update's change over all floating-point arrays, computed in float64."""
    total = 0.0
    for name, array in after.items():
        if array.dtype.kind == "f" and name in before:
            change = np.subtract(array, before[name], dtype=np.float64).ravel()
            total += float(change @ change)
    return math.sqrt(total)


@dataclass
class WeightedMean:
    """A running weighted mean of arrays and metrics, in memory two copies of a float32 model
    however many are folded.

    Sums are kept in float64, so the order in which devices answer does not show in a float32 model:
    the same seed gives the same run.
    """

    weighted_by: str = "num-examples"
    weight: float = 0.0
    count: int = 0
    _sums: ArrayMap = field(default_factory=dict)
    _dtypes: dict[str, np.dtype[Any]] = field(default_factory=dict)
    _metrics: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    _scalars: set[str] = field(default_factory=set)
    _names: tuple[str, str] = ("arrays", "metrics")
    _whole: bool = True

    def fold(self, records: Records, weight: float) -> None:
        """Take one update in; raises ProtocolError ``metrics`` when its metric keys are not the
        others'.
        """
        arrays = next(iter(records.arrays.values()), {})
        name, metrics = next(iter(records.metrics.items()))
        values = _vectors(metrics, self.weighted_by)
        if self.count and not _same_layout(values, self._metrics):
            raise ProtocolError(
                "metrics",
                f"the metrics {sorted(values)} are not those of the other devices, {sorted(self._metrics)}",
            )
        if not self.count:
            self._names = (next(iter(records.arrays), "arrays"), name)
            self._scalars = {key for key, value in metrics.items() if not isinstance(value, list)}
            self._dtypes = {key: array.dtype for key, array in arrays.items()}
        self._whole = self._whole and isinstance(metrics[self.weighted_by], int)
        weighted = {
            key: np.asarray(np.multiply(array, weight, dtype=np.float64))
            for key, array in arrays.items()
        }
        self._absorb(weighted, {key: vector * weight for key, vector in values.items()}, weight, 1)

    def __add__(self, other: WeightedMean) -> WeightedMean:
        """The mean over both; neither operand changes."""
        if not other.count:
            return self._copy()
        if not self.count:
            return other._copy()
        if not _same_layout(self._metrics, other._metrics):
            raise ProtocolError("metrics", "two cohorts report different metrics")
        total = self._copy()
        total._whole = self._whole and other._whole
        total._absorb(other._sums, other._metrics, other.weight, other.count)
        return total

    def records(self) -> Records:
        """The mean as one update whose example count is the sum; raises ValueError when empty."""
        if not self.count:
            raise ValueError("no update was folded")
        arrays = {
            key: _restore(total / self.weight, self._dtypes[key])
            for key, total in self._sums.items()
        }
        means = {key: total / self.weight for key, total in self._metrics.items()}
        metrics: ValueMap = {
            key: float(value[0]) if key in self._scalars else [float(item) for item in value]
            for key, value in means.items()
        }
        metrics[self.weighted_by] = round(self.weight) if self._whole else self.weight
        array_name, metric_name = self._names
        groups = {array_name: arrays} if arrays else {}
        return Records(arrays=groups, metrics={metric_name: metrics}, order=(*groups, metric_name))

    def _absorb(
        self, sums: ArrayMap, metrics: dict[str, NDArray[np.float64]], weight: float, count: int
    ) -> None:
        for key, array in sums.items():
            if key in self._sums:
                self._sums[key] += array
            else:
                self._sums[key] = np.array(array)
        for key, vector in metrics.items():
            self._metrics[key] = self._metrics[key] + vector if key in self._metrics else vector
        self.weight, self.count = self.weight + weight, self.count + count

    def _copy(self) -> WeightedMean:
        return WeightedMean(
            self.weighted_by,
            self.weight,
            self.count,
            {k: v.copy() for k, v in self._sums.items()},
            dict(self._dtypes),
            dict(self._metrics),
            set(self._scalars),
            self._names,
            self._whole,
        )


def _restore(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Back to the dtype the devices use; counters round to the nearest whole number."""
    if dtype.kind in "iub":
        array = np.rint(array)
    # asarray: numpy turns an array without dimensions into a scalar on the way.
    return np.asarray(array).astype(dtype, copy=False)


def restore_dtypes(arrays: ArrayMap, specs: list[ArraySpec]) -> ArrayMap:
    """Cast aggregated arrays to what they were: stock strategies may return float64."""
    wanted = {spec.name: np.dtype(spec.dtype) for spec in specs}
    return {
        name: _restore(array, wanted[name]) if name in wanted else array
        for name, array in arrays.items()
    }


def _vectors(metrics: ValueMap, skip: str) -> dict[str, NDArray[np.float64]]:
    def vector(value: Value) -> NDArray[np.float64]:
        return np.array(value if isinstance(value, list) else [value], dtype=np.float64)

    return {key: vector(value) for key, value in metrics.items() if key != skip}


def _same_layout(a: dict[str, NDArray[np.float64]], b: dict[str, NDArray[np.float64]]) -> bool:
    return {key: value.shape for key, value in a.items()} == {
        key: value.shape for key, value in b.items()
    }
