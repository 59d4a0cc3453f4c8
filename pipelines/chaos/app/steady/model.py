"""Deterministic training: equal weights and partitions give equal updates on every device."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIZE = 20_000
"""Number of weights: 80 kB, enough for a link to be cut in the middle."""
TRAININGS = "STEADY_TRAININGS"
"""Environment variable with a file: each training adds its message's id to it."""
Weights = NDArray[np.float32]
"""Shape ``(SIZE,)``."""


def initial() -> dict[str, Weights]:
    """The weights before the first round: zeros."""
    return {"w": np.zeros(SIZE, np.float32)}


def target(partition: int, size: int = SIZE) -> Weights:
    """The weights that a device trains towards."""
    return np.random.default_rng(partition).standard_normal(size).astype(np.float32)


def train(weights: Weights, partition: int) -> Weights:
    """Move the weights half way to the device's target."""
    change = np.float32(0.5) * (target(partition, weights.size) - weights)
    return (weights + change).astype(np.float32)


def examples(partition: int) -> int:
    """Number of examples that a device reports: the weight of its update."""
    return 10 + partition


def loss(weights: Weights, partition: int) -> float:
    """Mean squared distance from the device's target."""
    return float(np.mean((target(partition, weights.size) - weights) ** 2))
