"""Distances between updates, and Krum's choice by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.protocol.records import ArrayMap
from fl_runtime.aggregation.blocks import DOT, blocks


def squared_distances(updates: Sequence[ArrayMap]) -> NDArray[np.float64]:
    """Squared L2 distances between all pairs of updates, of shape (updates, updates).

    By ``|x - y|^2 = |x|^2 + |y|^2 - 2xy``, where x and y are differences from the first update:
    those of the weights themselves are so large that float32 loses the distance.
    """
    gram = np.zeros((len(updates), len(updates)))
    for name, first in updates[0].items():
        dtype = np.result_type(first.dtype, np.float32)
        rows = [update[name].reshape(-1) for update in updates]
        buffer = np.empty((len(rows), min(DOT, first.size)), dtype)
        for at in blocks(rows, first.size, DOT):
            change = buffer[:, : at.stop - at.start]
            for row, source in zip(change, rows, strict=True):
                np.subtract(source[at], rows[0][at], out=row, dtype=dtype, casting="unsafe")
            for row in range(len(rows)):  # a matrix product would start BLAS's threads
                gram[row, row:] += np.vecdot(change[row:], change[row])
    gram += np.triu(gram, 1).T
    squares = np.diag(gram)
    distances: NDArray[np.float64] = np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0.0)
    return distances


def krum_order(distances: NDArray[Any], malicious: int) -> list[int]:
    """The updates' positions by Krum's score, the best first (Blanchard et al. 2017,
    https://arxiv.org/abs/1703.02757): the sum of the distances to the nearest ``n - f - 2`` others.
    """
    nearest = max(1, len(distances) - malicious - 2)
    scores = [np.sort(np.delete(row, at))[:nearest].sum() for at, row in enumerate(distances)]
    return [int(position) for position in np.argsort(scores, kind="stable")]
