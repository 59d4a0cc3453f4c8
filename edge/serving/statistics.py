"""Counts predictions and keeps summary statistics of their inputs and residuals: means and
deviations, never a row.

Two windows: the first :data:`FIRST` values after a model was taken into use, and the latest ones.
Each process that predicts
writes a file of its own; the agent adds them up for its heartbeats.
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

from edge.protocol.messages import SERVED_INPUTS, Moments, Served, Serving

FIRST = 500
BLOCK = 500
"""The latest window holds one to two blocks of so many values."""
WRITE_SECONDS = 1.0
LARGEST = 1e30
RESIDUAL = ":residual"
"""Stands among the inputs' names, of which none begins with a colon."""
_ODD = re.compile(r"[^\w .:/%()\[\]-]")
MERGED = "ended.json"
"""What processes that have ended left."""


class Window(msgspec.Struct, frozen=True, array_like=True):
    """Count, mean and sum of squared deviations (Chan, Golub, LeVeque 1983: windows can be added)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def plus(self, other: Window) -> Window:
        """Both together."""
        count = self.count + other.count
        if not count:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * other.count / count
        return Window(
            count,
            mean,
            self.squares + other.squares + delta * delta * self.count * other.count / count,
        )

    def moments(self) -> Moments:
        """As heartbeats say it."""
        return Moments(
            self.count,
            _short(self.mean),
            _short((self.squares / self.count) ** 0.5 if self.count else 0.0),
        )


class Counted(msgspec.Struct, kw_only=True):
    """One process's file. ``sequence`` is the manifest's: another model starts anew."""

    sequence: int
    predictions: int = 0
    errors: int = 0
    first: dict[str, Window] = {}
    before: dict[str, Window] = {}
    block: dict[str, Window] = {}


class Tally:
    """Counts for one process and one model."""

    def __init__(self, folder: Path, sequence: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"{os.getpid()}-{secrets.token_hex(4)}.json"
        self._counted = Counted(sequence=sequence)
        self._had = {
            name: window.count for name, window in _added(_read(folder, sequence)).first.items()
        }
        self._written = 0.0

    def observe(
        self,
        inputs: Mapping[str, np.ndarray],
        predictions: int,
        residuals: np.ndarray | None = None,
    ) -> None:
        """Add a batch. ``inputs``: a column of numbers by name; only the first
        :data:`SERVED_INPUTS` are kept.
        """
        self._counted.predictions += predictions
        for name, values in list(inputs.items())[:SERVED_INPUTS]:
            self._add(_ODD.sub("_", name).lstrip(":")[:40] or "_", values)
        if residuals is not None:
            self._add(RESIDUAL, residuals)
        self.write()

    def failed(self) -> None:
        """Count a request that could not be answered."""
        self._counted.errors += 1
        self.write()

    def write(self, *, now: bool = False) -> None:
        """Put the file in place, at most once in :data:`WRITE_SECONDS`. A full disk costs
        statistics, no prediction.
        """
        if not now and time.monotonic() - self._written < WRITE_SECONDS:
            return
        self._written = time.monotonic()
        with contextlib.suppress(OSError):
            _write(self._file, self._counted)

    def _add(self, name: str, values: np.ndarray) -> None:
        numbers = np.asarray(values, np.float64).ravel()
        numbers = np.clip(numbers[np.isfinite(numbers)], -LARGEST, LARGEST)
        counted = self._counted
        missing = FIRST - self._had.get(name, 0) - counted.first.get(name, Window()).count
        counted.first[name] = counted.first.get(name, Window()).plus(
            _window(numbers[: max(0, missing)])
        )
        for at in range(max(0, missing), len(numbers), BLOCK):
            counted.block[name] = counted.block.get(name, Window()).plus(
                _window(numbers[at : at + BLOCK])
            )
            if counted.block[name].count >= BLOCK:
                counted.before[name] = counted.block.pop(name)


def serving(folder: Path, sequence: int) -> Serving | None:
    """All processes together, about one model; None when nothing was predicted yet."""
    whole = _added(_read(folder, sequence))
    if not whole.predictions and not whole.errors:
        return None
    told = {}
    for name in sorted({*whole.first, *whole.before, *whole.block}):
        recent = whole.before.get(name, Window()).plus(whole.block.get(name, Window()))
        told[name] = Served(name, whole.first.get(name, Window()).moments(), recent.moments())
    residuals = told.pop(RESIDUAL, None)
    return Serving(
        predictions=whole.predictions,
        errors=whole.errors,
        inputs=list(told.values())[:SERVED_INPUTS],
        residuals=residuals,
    )


def sweep(folder: Path, sequence: int) -> None:
    """Add up what ended processes left, and remove what they left of other models."""
    ended = [file for file in folder.glob("*-*.json") if not _alive(file.name.partition("-")[0])]
    if not ended:
        return
    mine = [
        counted
        for file in (*ended, folder / MERGED)
        if (counted := _load(file)) is not None and counted.sequence == sequence
    ]
    with contextlib.suppress(OSError):
        if mine:
            _write(folder / MERGED, _added(mine))
        for file in ended:
            file.unlink(missing_ok=True)


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
                mine[name] = mine.get(name, Window()).plus(window)
    return whole


def _read(folder: Path, sequence: int) -> list[Counted]:
    found = (_load(file) for file in sorted(folder.glob("*.json")))
    return [counted for counted in found if counted is not None and counted.sequence == sequence]


def _load(file: Path) -> Counted | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Counted)
    except (OSError, msgspec.DecodeError):
        return None


def _write(file: Path, counted: Counted) -> None:
    part = file.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(counted))
    part.replace(file)


def _window(numbers: np.ndarray) -> Window:
    if not len(numbers):
        return Window()
    mean = float(numbers.mean())
    return Window(len(numbers), mean, float(np.square(numbers - mean).sum()))


def _short(value: float) -> float:
    """Six digits are enough, and a heartbeat is small."""
    return float(f"{max(-LARGEST, min(LARGEST, value)):.6g}")


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
