"""Training as arithmetic: the same weights and the same partition give the same update, wherever it
is computed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIZE = 20_000
"""80 kB: enough for a link to be cut in the middle."""
Weights = NDArray[np.float32]


def initial() -> dict[str, Weights]:
    """The weights before the first round."""
    return {"w": np.zeros(SIZE, np.float32)}


def target(partition: int) -> Weights:
    """What a device pulls to."""
    return np.random.default_rng(partition).standard_normal(SIZE).astype(np.float32)


def train(weights: Weights, partition: int) -> Weights:
    """Half way to the target."""
    return (weights + np.float32(0.5) * (target(partition) - weights)).astype(np.float32)


def examples(partition: int) -> int:
    """How much a device's update weighs."""
    return 10 + partition


def loss(weights: Weights, partition: int) -> float:
    """Mean squared distance from the target."""
    return float(np.mean((target(partition) - weights) ** 2))
