"""Passes over arrays in blocks that fit a processor's cache.

A NumPy expression over whole models writes each intermediate result to memory and reads it again;
in blocks, only the inputs and the sum move. Nothing here calls BLAS on more than 8,192 elements:
above, it starts threads, which for these sums cost ten times what they save.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.protocol.records import ArrayMap
from fl_runtime.aggregation.mapped import release

BLOCK = 2**15
"""Elements of a block: 256 KiB of float64, half of a common processor's second cache."""
DOT = 2**13
"""Elements of one dot product."""
RELEASED_BLOCKS = 16
"""Blocks after which the pages of mapped arrays are given back: 2 MiB of float32."""
SMALLEST_SQUARE = 1e-30
"""Sums of squares below it may have lost float32 terms that are too small, and are made again."""

Block = slice


def blocks(arrays: Sequence[NDArray[Any]], size: int, block: int = BLOCK) -> Iterator[Block]:
    """Yield slices over ``size`` elements; between them, give back pages of mapped ``arrays``."""
    for number, start in enumerate(range(0, size, block), 1):
        yield slice(start, min(start + block, size))
        if number * block % (BLOCK * RELEASED_BLOCKS) == 0:
            release(arrays)
    release(arrays)


def add_weighted(total: NDArray[np.float64], parts: Sequence[tuple[NDArray[Any], float]]) -> None:
    """Add ``array * weight`` of each part to ``total``, all of one shape, in float64.

    Several parts at once cost one pass over ``total``.
    """
    sums = total.reshape(-1)
    flat = [(array.reshape(-1), weight) for array, weight in parts]
    scaled = np.empty(min(BLOCK, sums.size))
    for at in blocks([array for array, _ in flat], sums.size):
        block = sums[at]
        part = scaled[: block.size]
        for values, weight in flat:
            # Cast and then multiply: NumPy does both at once only by small pieces.
            np.copyto(part, values[at], casting="unsafe")
            np.multiply(part, weight, out=part)
            np.add(block, part, out=block)


def change_norm(before: ArrayMap, after: ArrayMap) -> float:
    """L2 norm of ``after - before`` over all floating-point arrays that both have.

    Infinite or NaN where a value is, or where the norm is too large for float64.
    """
    total = 0.0  # in Python's float: the square of a large float32 would overflow
    for name, array in after.items():
        if array.dtype.kind == "f" and name in before:
            total += _squared_change(before[name], array)
    return math.sqrt(total)


def is_finite(array: NDArray[Any], largest: float = math.inf) -> bool:
    """Whether all values of a floating-point array are finite, and none beyond ``largest``."""
    flat = array.reshape(-1)
    narrow = array.dtype.itemsize <= 4
    # A square is infinite or NaN where its value is; the sum of squares shows it in one pass.
    if narrow and largest >= np.finfo(np.float32).max and math.isfinite(_squares(flat, None)):
        return True
    for at in blocks([flat], flat.size):
        values = flat[at]
        if not np.isfinite(values).all():
            return False
        if not narrow and np.abs(values).max(initial=0.0) > largest:
            return False
    return True


def _squared_change(before: NDArray[Any], after: NDArray[Any]) -> float:
    flat, origin = after.reshape(-1), before.reshape(-1)
    if after.dtype.itemsize <= 4 and before.dtype.itemsize <= 4:
        total = _squares(flat, origin)
        if SMALLEST_SQUARE < total < math.inf:
            return total
    return _squares(flat, origin, np.float64)


def _squares(
    flat: NDArray[Any], origin: NDArray[Any] | None, dtype: type[np.floating[Any]] = np.float32
) -> float:
    """The sum of squares of ``flat - origin``; the squares in ``dtype``, the sum in float64."""
    total = 0.0
    buffer = np.empty(min(BLOCK, flat.size), dtype)
    arrays = [flat] if origin is None else [flat, origin]
    with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses what is not finite
        for at in blocks(arrays, flat.size):
            values = flat[at]
            if origin is not None:
                change = buffer[: values.size]
                np.subtract(values, origin[at], out=change, dtype=dtype, casting="unsafe")
            else:
                change = values.astype(dtype, copy=False)
            for start in range(0, change.size, DOT):
                piece = change[start : start + DOT]
                total += float(piece.dot(piece))
    return total
