"""The weighted mean of updates, as algebra: cohorts fold alone, the server folds the cohorts.

:class:`WeightedMean` is a commutative monoid. With ``+`` and up to the rounding of float64::

    (a + b) + c == a + (b + c)        a + b == b + a        a + WeightedMean() == a

So the result does not depend on how devices are split into cohorts nor on the order in which they
answer, and equals FedAvg over all devices (McMahan et al. 2017, https://arxiv.org/abs/1602.05629,
algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.protocol.errors import ProtocolError
from edge.protocol.records import ArrayMap, Records, Value, ValueMap, encode_parts
from edge.protocol.tensors import bytes_of
from fl_runtime.aggregation.blocks import add_weighted, blocks
from fl_runtime.run.messages import ArraySpec

AT_ONCE = 4
"""Updates added in one pass over the sums."""

_Vectors = Mapping[str, NDArray[np.float64]]


@dataclass
class WeightedMean:
    """A running weighted mean of one array record and one metric record.

    Keeps float64 sums, so the rounding that the order of arrival causes does not reach a float32
    model: the same seed gives the same run. Takes the memory of two float32 models, however many
    updates are added, and up to four updates that wait for one pass over the sums.
    """

    weighted_by: str = "num-examples"
    """Key of the example count among the metrics. The mean's own count is the sum."""
    weight: float = 0.0
    count: int = 0
    _sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    _waiting: list[tuple[ArrayMap, float]] = field(default_factory=list)
    _dtypes: dict[str, np.dtype[Any]] = field(default_factory=dict)
    _metrics: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    _scalars: set[str] = field(default_factory=set)
    _names: tuple[str, str] = ("arrays", "metrics")
    _whole: bool = True

    def add(self, records: Records, weight: float) -> None:
        """Add one update. Raises ProtocolError ``metrics`` when its metrics have other keys or
        lengths than those added before.
        """
        arrays = next(iter(records.arrays.values()), {})
        name, metrics = next(iter(records.metrics.items()))
        values = _vectors(metrics, self.weighted_by)
        if self.count and not _same_layout(values, self._metrics):
            raise ProtocolError(
                "metrics",
                f"the metrics {sorted(values)} differ from those of the other devices,"
                f" {sorted(self._metrics)}",
            )
        if not self.count:
            self._names = (next(iter(records.arrays), "arrays"), name)
            self._scalars = {key for key, value in metrics.items() if not isinstance(value, list)}
            self._dtypes = {key: array.dtype for key, array in arrays.items()}
            self._sums = {key: np.zeros(array.shape) for key, array in arrays.items()}
        # Before anything is added: half an update would spoil the sums.
        _check_layout(arrays, self._sums)
        self._whole = self._whole and isinstance(metrics[self.weighted_by], int)
        self._waiting.append((arrays, weight))
        if len(self._waiting) == AT_ONCE:
            self._add_waiting()
        self._count({key: vector * weight for key, vector in values.items()}, weight, 1)

    def __add__(self, other: WeightedMean) -> WeightedMean:
        """The mean over the updates of both; neither operand changes."""
        if not other.count:
            return self._copy()
        if not self.count:
            return other._copy()
        if not _same_layout(self._metrics, other._metrics):
            raise ProtocolError("metrics", "two cohorts report different metrics")
        total = self._copy()
        total._whole = self._whole and other._whole
        other._add_waiting()
        for key, array in other._sums.items():
            total._sums[key] += array
        total._count(other._metrics, other.weight, other.count)
        return total

    def records(self) -> Records:
        """The mean as one update, in the dtypes of the updates. Raises ValueError when empty."""
        described = self._described()
        for group in described.arrays.values():
            for key, total in self._sums.items():
                group[key] = _cast(total / self.weight, self._dtypes[key])
        return described

    def encoded(self, size: int) -> Iterator[bytes]:
        """:meth:`records` as a file, in parts of ``size`` bytes: no array is made as a whole.

        Raises ValueError when empty.
        """
        described = self._described()
        made = {str(at): total.reshape(-1) for at, total in enumerate(self._sums.values())}

        def data(name: str, array: NDArray[Any]) -> Iterator[bytes | memoryview]:
            if name not in made:
                yield from bytes_of(name, array)
                return
            for block in blocks([], array.size):
                yield _cast(made[name][block] / self.weight, array.dtype).tobytes()

        return regroup(encode_parts(described, data), size)

    def _described(self) -> Records:
        """The mean with arrays that have no memory: dtypes, shapes and metrics."""
        if not self.count:
            raise ValueError("no update was added")
        self._add_waiting()
        means = {key: total / self.weight for key, total in self._metrics.items()}
        metrics: ValueMap = {
            key: float(value[0]) if key in self._scalars else [float(item) for item in value]
            for key, value in means.items()
        }
        metrics[self.weighted_by] = round(self.weight) if self._whole else self.weight
        array_name, metric_name = self._names
        arrays = {
            key: np.broadcast_to(np.zeros((), self._dtypes[key]), total.shape)
            for key, total in self._sums.items()
        }
        groups: dict[str, ArrayMap] = {array_name: arrays} if arrays else {}
        return Records(arrays=groups, metrics={metric_name: metrics}, order=(*groups, metric_name))

    def _add_waiting(self) -> None:
        for key, total in self._sums.items():
            add_weighted(total, [(arrays[key], weight) for arrays, weight in self._waiting])
        self._waiting.clear()

    def _count(self, metrics: _Vectors, weight: float, count: int) -> None:
        for key, vector in metrics.items():
            self._metrics[key] = self._metrics[key] + vector if key in self._metrics else vector
        self.weight, self.count = self.weight + weight, self.count + count

    def _copy(self) -> WeightedMean:
        self._add_waiting()
        return replace(
            self,
            _sums={key: array.copy() for key, array in self._sums.items()},
            _waiting=[],
            _metrics=dict(self._metrics),
        )


def regroup(pieces: Iterable[bytes | memoryview], size: int) -> Iterator[bytes]:
    """Join and cut pieces, so that each has ``size`` bytes and only the last one may have fewer."""
    held = bytearray()
    for piece in pieces:
        view = memoryview(piece)
        while len(view):
            part = view[: size - len(held)]
            held += part
            view = view[len(part) :]
            if len(held) == size:
                yield bytes(held)
                held.clear()
    if held:
        yield bytes(held)


def restore_dtypes(arrays: ArrayMap, specs: list[ArraySpec]) -> ArrayMap:
    """Cast aggregated arrays to the model's dtypes: Flower's strategies may return float64."""
    wanted = {spec.name: np.dtype(spec.dtype) for spec in specs}
    return {
        name: _cast(array, wanted[name]) if name in wanted else array
        for name, array in arrays.items()
    }


def _check_layout(arrays: ArrayMap, sums: _Vectors) -> None:
    """The arrays are numbers, with the names and shapes of the updates before."""
    if any(array.dtype.kind not in "biuf" for array in arrays.values()):
        raise ProtocolError("dtype", "an array holds no numbers: it cannot be averaged")
    shapes = {key: array.shape for key, array in arrays.items()}
    if shapes != {key: array.shape for key, array in sums.items()}:
        raise ProtocolError("arrays", "the arrays differ from those of the other devices")


def _cast(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind in "iub":  # counters such as BatchNorm's num_batches_tracked
        array = np.rint(array)
    # asarray: NumPy's arithmetic turns an array of shape () into a scalar.
    return np.asarray(array).astype(dtype, copy=False)


def _vectors(metrics: ValueMap, skip: str) -> dict[str, NDArray[np.float64]]:
    """Each metric as a vector; a scalar has length 1."""

    def vector(value: Value) -> NDArray[np.float64]:
        return np.array(value if isinstance(value, list) else [value], dtype=np.float64)

    return {key: vector(value) for key, value in metrics.items() if key != skip}


def _same_layout(a: _Vectors, b: _Vectors) -> bool:
    return {key: value.shape for key, value in a.items()} == {
        key: value.shape for key, value in b.items()
    }
