"""Counts predictions, and keeps means and deviations of their inputs and residuals, never a row.

There are two windows: the first :data:`FIRST` values after a model was installed, and the latest
values. Each predicting process writes its own file; the agent adds the files up for heartbeats.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from edge.files import write_atomically
from edge.protocol.messages import SERVED_INPUTS, Moments, Served, Serving
from edge.typed import from_json

FIRST = 500
"""Values in the first window."""
BLOCK = 500
"""The latest window holds one to two blocks of this many values."""
WRITE_SECONDS = 1.0
"""Shortest time between two writes of a file."""
LARGEST = 1e30
"""Larger values are clipped: their squares still fit a float."""
RESIDUAL = ":residual"
"""Key of the residuals beside the inputs' names, none of which begins with a colon."""
MERGED = "ended.json"
"""Sum of the files of processes that have ended."""
_UNPRINTABLE = re.compile(r"[^\w .:/%()\[\]-]")


class Window(msgspec.Struct, frozen=True, array_like=True):
    """Count, mean and sum of squared deviations of a series.

    ``+`` is associative and commutative (Chan, Golub, LeVeque 1983: Algorithms for Computing the
    Sample Variance); the empty window is its identity.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def __add__(self, other: Window) -> Window:
        count = self.count + other.count
        if not count:
            return self
        delta = other.mean - self.mean
        return Window(
            count,
            self.mean + delta * other.count / count,
            self.squares + other.squares + delta * delta * self.count * other.count / count,
        )

    def moments(self) -> Moments:
        """Return the window as heartbeats carry it."""
        deviation = (self.squares / self.count) ** 0.5 if self.count else 0.0
        return Moments(self.count, _short(self.mean), _short(deviation))


Windows = dict[str, Window]
"""Windows by input name."""


class Counted(msgspec.Struct, kw_only=True):
    """One process's file."""

    sequence: int
    """The manifest's number: another model starts at zero."""
    predictions: int = 0
    errors: int = 0
    first: Windows = {}
    before: Windows = {}
    """The last full block."""
    block: Windows = {}
    """The block that is being filled."""


class Tally:
    """Counts for one process and one model.

    Args:
        folder: The device's statistics.
        sequence: The number of the model's manifest.

    """

    def __init__(self, folder: Path, sequence: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # The random part tells apart two models of one process, and two processes of one pid.
        self._file = folder / f"{os.getpid()}-{secrets.token_hex(4)}.json"
        self._counted = Counted(sequence=sequence)
        earlier = _added(_read(folder, sequence)).first
        self._in_first = {name: window.count for name, window in earlier.items()}
        self._written = 0.0

    def observe(
        self,
        inputs: Mapping[str, np.ndarray],
        predictions: int,
        residuals: np.ndarray | None = None,
    ) -> None:
        """Add a batch.

        Args:
            inputs: Columns of numbers by name; the first :data:`SERVED_INPUTS` are counted.
            predictions: Rows in the batch.
            residuals: Prediction minus truth, when the truth is known.

        """
        self._counted.predictions += predictions
        for name, values in list(inputs.items())[:SERVED_INPUTS]:
            self._add(_UNPRINTABLE.sub("_", name).lstrip(":")[:40] or "_", values)
        if residuals is not None:
            self._add(RESIDUAL, residuals)
        self.write()

    def failed(self) -> None:
        """Count a request that the app could not answer."""
        self._counted.errors += 1
        self.write()

    def write(self, *, now: bool = False) -> None:
        """Write the file, at most once in :data:`WRITE_SECONDS` unless ``now``.

        A full disk costs the statistics, not the prediction.
        """
        if not now and time.monotonic() - self._written < WRITE_SECONDS:
            return
        self._written = time.monotonic()
        with contextlib.suppress(OSError):
            _write(self._file, self._counted)

    def _add(self, name: str, values: np.ndarray) -> None:
        numbers = np.asarray(values, np.float64).ravel()
        numbers = np.clip(numbers[np.isfinite(numbers)], -LARGEST, LARGEST)
        first, block = self._counted.first, self._counted.block
        so_far = first.get(name, Window())
        missing = max(0, FIRST - self._in_first.get(name, 0) - so_far.count)
        first[name] = so_far + _window(numbers[:missing])
        for at in range(missing, len(numbers), BLOCK):
            block[name] = block.get(name, Window()) + _window(numbers[at : at + BLOCK])
            if block[name].count >= BLOCK:
                self._counted.before[name] = block.pop(name)


def serving(folder: Path, sequence: int) -> Serving | None:
    """Add up all processes' counts for one model; None when nothing was predicted yet."""
    whole = _added(_read(folder, sequence))
    if not whole.predictions and not whole.errors:
        return None
    served = {}
    for name in sorted({*whole.first, *whole.before, *whole.block}):
        recent = whole.before.get(name, Window()) + whole.block.get(name, Window())
        served[name] = Served(name, whole.first.get(name, Window()).moments(), recent.moments())
    residuals = served.pop(RESIDUAL, None)
    return Serving(
        predictions=whole.predictions,
        errors=whole.errors,
        inputs=list(served.values())[:SERVED_INPUTS],
        residuals=residuals,
    )


def sweep(folder: Path, sequence: int) -> None:
    """Merge the files of processes that have ended, and drop those of other models."""
    # The file of a running process is rewritten by it: merging that one would count twice.
    ended = [file for file in folder.glob("*-*.json") if not _alive(file.name)]
    if not ended:
        return
    readable = (_load(file) for file in (*ended, folder / MERGED))
    ours = [found for found in readable if found is not None and found.sequence == sequence]
    with contextlib.suppress(OSError):
        if ours:
            _write(folder / MERGED, _added(ours))
        for file in ended:
            file.unlink(missing_ok=True)
        for part in folder.glob(".*-*.part"):
            if not _alive(part.name.lstrip(".")):
                part.unlink(missing_ok=True)


def _added(parts: Iterable[Counted]) -> Counted:
    whole = Counted(sequence=0)
    for part in parts:
        whole.sequence = part.sequence
        whole.predictions += part.predictions
        whole.errors += part.errors
        for mine, theirs in (
            (whole.first, part.first),
            (whole.before, part.before),
            (whole.block, part.block),
        ):
            for name, window in theirs.items():
                mine[name] = mine.get(name, Window()) + window
    return whole


def _read(folder: Path, sequence: int) -> list[Counted]:
    found = (_load(file) for file in sorted(folder.glob("*.json")))
    return [counted for counted in found if counted is not None and counted.sequence == sequence]


def _load(file: Path) -> Counted | None:
    try:
        return from_json(file.read_bytes(), type=Counted)
    except (OSError, ValueError):
        return None


def _write(file: Path, counted: Counted) -> None:
    write_atomically(file, msgspec.json.encode(counted), durable=False)


def _window(numbers: np.ndarray) -> Window:
    if not len(numbers):
        return Window()
    mean = float(numbers.mean())
    return Window(len(numbers), mean, float(np.square(numbers - mean).sum()))


def _short(value: float) -> float:
    """Round to six digits: heartbeats have to be small."""
    return float(f"{max(-LARGEST, min(LARGEST, value)):.6g}")


def _alive(name: str) -> bool:
    """Whether the process that a file is named after still runs."""
    try:
        os.kill(int(name.partition("-")[0]), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
