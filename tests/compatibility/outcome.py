"""What a run leaves, whichever engine ran it, and how two runs differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

RELATIVE, ABSOLUTE = 1e-5, 1e-6
"""Of float32: the order of a sum may differ."""
Metrics = dict[int, dict[str, Any]]
"""By round, then by name."""


@dataclass(kw_only=True)
class Outcome:
    """A run's model, the metrics of its rounds, and what else the app left."""

    model: dict[str, np.ndarray] = field(default_factory=dict)
    """Empty: the run has none."""
    train: Metrics = field(default_factory=dict)
    evaluate: Metrics = field(default_factory=dict)
    server: Metrics = field(default_factory=dict)
    tables: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    """What the ServerApp left in ``context.state``."""
    files: dict[str, bytes] = field(default_factory=dict)
    """What the ServerApp wrote into its working directory."""


def differences(
    ours: Outcome, flowers: Outcome, *, metrics: bool = True, relative: float = RELATIVE
) -> list[str]:
    """One line for each value of Flower's that we lack or have otherwise.

    Args:
        ours: The run here.
        flowers: The run under Flower's engine.
        metrics: Whether Flower's engine has the rounds' metrics at all. It has none of a loop that
            the app wrote itself.
        relative: Tolerance of the model's weights.

    """
    found = _model(ours.model, flowers.model, len(flowers.evaluate), relative)
    if metrics:
        for part in ("train", "evaluate", "server"):
            found += _rounds(part, getattr(ours, part), getattr(flowers, part))
    for name, table in flowers.tables.items():
        found += _mapping(f"table {name}", ours.tables.get(name, {}), table)
    for name, data in flowers.files.items():
        if ours.files.get(name) != data:
            found.append(f"file {name}: {ours.files.get(name)!r}, not {data!r}")
    return found


def _model(
    ours: Mapping[str, np.ndarray],
    flowers: Mapping[str, np.ndarray],
    rounds: int,
    relative: float,
) -> list[str]:
    if list(ours) != list(flowers):
        return [f"model: arrays {list(ours)}, not {list(flowers)}"]
    found = []
    for name, wanted in flowers.items():
        array = ours[name]
        # Flower's mean turns integers into floats. Here they keep their type, rounded each round.
        rounding = ABSOLUTE if array.dtype.kind == wanted.dtype.kind else rounds
        if array.shape != wanted.shape:
            found.append(f"model: {name} has shape {array.shape}, not {wanted.shape}")
        elif not np.allclose(array, wanted, relative, rounding, equal_nan=True):
            found.append(f"model: {name} is {array.ravel()[:4]}, not {wanted.ravel()[:4]}")
    return found


def _rounds(part: str, ours: Metrics, flowers: Metrics) -> list[str]:
    found = []
    for number, wanted in flowers.items():
        if number:  # what the server evaluates before the first round belongs to no round
            found += _mapping(f"{part} of round {number}", ours.get(number, {}), wanted)
    extra = [number for number, metrics in ours.items() if metrics and number not in flowers]
    return [*found, *(f"{part} of round {number} is not Flower's" for number in extra)]


def _mapping(what: str, ours: Mapping[str, Any], flowers: Mapping[str, Any]) -> list[str]:
    found = [f"{what}: has {name!r}" for name in ours if name not in flowers]
    for name, wanted in flowers.items():
        if name not in ours:
            found.append(f"{what}: lacks {name!r}")
        elif not equal(ours[name], wanted):
            found.append(f"{what}: {name} is {ours[name]!r}, not {wanted!r}")
    return found


def equal(one: Any, other: Any) -> bool:
    """Whether two values of a record are equal, numbers to float tolerance."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, int | float) and isinstance(other, int | float):
        close = math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
        return close or (math.isnan(one) and math.isnan(other))
    # JSON has no NaN: a record here has null in its place.
    if one is None and isinstance(other, float):
        return not math.isfinite(other)
    return bool(one == other)
