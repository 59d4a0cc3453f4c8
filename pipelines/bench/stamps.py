"""The stamps that the app leaves, and what a round takes by them, on whichever engine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path


def round_seconds(folder: Path) -> list[float]:
    """Seconds from the first device's training in a round to that of the next round.

    The first round is left out: processes import the app in it.
    """
    begun: dict[int, float] = {}
    for number, kind, moment in _stamps(folder):
        if kind == "train":
            begun[number] = min(moment, begun.get(number, moment))
    starts = [begun[number] for number in sorted(begun)]
    return [later - start for start, later in itertools.pairwise(starts[1:])]


def devices_asked(folder: Path) -> set[str]:
    """The partitions that have been asked to train or to evaluate."""
    return {file.stem for file in folder.glob("*.txt")}


def _stamps(folder: Path) -> Iterator[tuple[int, str, float]]:
    for file in folder.glob("*.txt"):
        for line in file.read_text().splitlines():
            number, kind, moment, _ = line.split()
            yield int(number), kind, float(moment)
