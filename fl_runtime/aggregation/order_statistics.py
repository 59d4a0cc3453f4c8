"""Medians and trimmed means of many arrays, element by element.

A sorting network (Batcher 1968, https://doi.org/10.1145/1468075.1468121) is a fixed list of
comparisons, each a minimum and a maximum of two rows: NumPy does both for a whole block at once,
where its own partition looks at each element by itself. Only those comparisons are made that tell
wanted ranks from unwanted ones.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_runtime.aggregation.blocks import blocks

NETWORK_ROWS = 128
"""Rows up to which a network beats NumPy's partition: its comparisons grow faster."""
BLOCK = 2**14
"""Elements of a block: half of it would cost a fifth more time, in calls of NumPy."""

Comparison = tuple[int, int]
"""The positions of two rows: the smaller values go to the first, the larger ones to the second."""


def median(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The median at each element, as ``numpy.median`` gives it. No value may be NaN."""
    middle = len(rows) // 2
    return _mean_of_ranks(rows, range(middle if len(rows) % 2 else middle - 1, middle + 1))


def trimmed_mean(rows: Sequence[NDArray[Any]], cut: float) -> NDArray[Any]:
    """The mean at each element without the smallest and largest ``cut`` of the values (Yin et al.
    2018, https://arxiv.org/abs/1803.01498), as Flower's ``FedTrimmedAvg``. No value may be NaN.
    """
    dropped = int(cut * len(rows))
    return _mean_of_ranks(rows, range(dropped, len(rows) - dropped))


def _mean_of_ranks(rows: Sequence[NDArray[Any]], ranks: range) -> NDArray[Any]:
    """The mean of the values of some ranks, at each element of arrays of one shape and dtype."""
    first = rows[0]
    # As NumPy's mean: integers become float64, and float16 is summed in float32.
    result = np.empty(first.shape, first.dtype if first.dtype.kind == "f" else np.float64)
    work = np.result_type(result.dtype, np.float32)
    flat, out = [row.reshape(-1) for row in rows], result.reshape(-1)
    chosen = _by_network if len(rows) <= NETWORK_ROWS else _by_partition
    buffer = np.empty((len(rows) + 1, min(BLOCK, out.size)), work)
    for at in blocks(flat, out.size, BLOCK):
        values = buffer[:, : at.stop - at.start]
        for row, source in zip(values, flat, strict=False):  # the last row of the buffer is spare
            row[...] = source[at]
        total = chosen(values, ranks)
        np.divide(total, len(ranks), out=total)
        out[at] = total
    return result


def _by_network(values: NDArray[Any], ranks: range) -> NDArray[Any]:
    """The sum of the rows of some ranks. ``values`` has one more row, and is overwritten."""
    *rows, spare = values
    for low, high in selection_network(len(rows), ranks):
        np.minimum(rows[low], rows[high], out=spare)
        np.maximum(rows[low], rows[high], out=rows[high])
        rows[low], spare = spare, rows[low]
    total: NDArray[Any] = rows[ranks[0]]
    for rank in ranks[1:]:
        np.add(total, rows[rank], out=total)
    return total


def _by_partition(values: NDArray[Any], ranks: range) -> NDArray[Any]:
    rows = values[:-1]
    rows.partition((ranks[0], ranks[-1]), axis=0)
    total: NDArray[Any] = rows[ranks.start : ranks.stop].sum(axis=0)
    return total


@cache
def selection_network(count: int, ranks: Collection[int]) -> tuple[Comparison, ...]:
    """The comparisons after which the values of ``ranks`` are those rows, in whatever order."""
    kept: list[Comparison] = []
    # Going back from the last comparison, a row is wanted, unwanted, or (None) must be exact.
    role: dict[int, bool | None] = {row: row in ranks for row in range(count)}
    for low, high in reversed(sorting_network(count)):
        if role[low] is not None and role[low] == role[high]:
            continue  # to exchange two wanted rows, or two unwanted ones, changes nothing
        kept.append((low, high))
        role[low] = role[high] = None
    return tuple(reversed(kept))


def sorting_network(count: int) -> list[Comparison]:
    """Batcher's odd-even merge sort of ``count`` rows."""
    pairs = []
    size = 1
    while size < count:
        step = size
        while step >= 1:
            for start in range(step % size, count - step, 2 * step):
                for low in range(start, start + min(step, count - start - step)):
                    if low // (2 * size) == (low + step) // (2 * size):
                        pairs.append((low, low + step))
            step //= 2
        size *= 2
    return pairs
