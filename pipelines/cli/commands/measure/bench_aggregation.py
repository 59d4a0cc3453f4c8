"""Measures of aggregation: its time beside the floor's and Flower's, and the memory of its tasks.

Each piece of work is a process of its own, and the medians of five turns are compared.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge.typed import from_json
from pipelines.bench.aggregation_work import STRATEGIES, Done
from pipelines.bench.updates import make
from pipelines.cli.commands.measure.measure import Measure
from pipelines.errors import UsageError

SIZE = 11_700_000
"""Parameters of the model: a ResNet-18."""
MODEL_MIB = SIZE * 4 / 2**20
UPDATES = 50
ROBUST_UPDATES = 20
TURNS = 5
DEVICES = (4, 16)
"""Devices of a proxy, and cohorts of a server, whose memory is compared."""


def mean_measures(folder: Path) -> list[Measure]:
    """A cohort's mean of 50 updates, with digest, check and norm."""
    works = ("hashing", "numpy-mean", "mean", "first-mean")
    done = _turns(folder, works, UPDATES)
    hashing, floor = done["hashing"], done["numpy-mean"]
    what = f"mean of {UPDATES} x 11.7M"
    found = []
    for work, name in (("mean", what), ("first-mean", f"{what}, first round")):
        ours = done[work]
        ratio = (_median(ours, "seconds") - _median(hashing, "seconds")) / _median(floor, "seconds")
        cpu = (_median(ours, "cpu") - _median(hashing, "cpu")) / _median(floor, "cpu")
        more = _median(ours, "more") / MODEL_MIB
        found += [
            Measure(name=name, value=_median(ours, "seconds"), unit="s"),
            Measure(
                name=f"{name}: time beyond hashing, NumPy's mean", value=ratio, unit="x", target=2.0
            ),
            Measure(name=f"{name}: the same of all cores", value=cpu, unit="x"),
            Measure(name=f"{name}: memory", value=more, unit="models", target=3.0),
        ]
    return found


def robust_measures(folder: Path) -> list[Measure]:
    """Robust strategies beside Flower's own code."""
    found = []
    for name in STRATEGIES:
        done = _turns(folder, (f"ours:{name}", f"flowers:{name}"), ROBUST_UPDATES)
        ours, theirs = done[f"ours:{name}"], done[f"flowers:{name}"]
        what = f"{name} of {ROBUST_UPDATES} x 11.7M"
        found += [
            Measure(name=what, value=_median(ours, "seconds"), unit="s"),
            Measure(
                name=f"{what}: time, Flower's",
                value=_median(ours, "seconds") / _median(theirs, "seconds"),
                unit="x",
                target=0.25,
            ),
            Measure(
                name=f"{what}: memory, Flower's",
                value=_median(ours, "more") / _median(theirs, "more"),
                unit="x",
                target=0.125,
            ),
        ]
    return found


def memory_measures_of_tasks(folder: Path) -> list[Measure]:
    """Peak memory of a proxy by its devices, and of a server by its cohorts."""
    return [
        Measure(
            name=f"{task} at 11.7M, {count} {of}",
            value=work(folder, task, count).peak,
            unit="MiB",
            target=target,
        )
        for task, of, target in (("proxy", "devices", 256.0), ("server", "cohorts", 450.0))
        for count in DEVICES
    ]


def filled(folder: Path) -> Path:
    """A folder with the model and its updates."""
    folder.mkdir(parents=True)
    make(folder, SIZE)
    return folder


def work(folder: Path, name: str, count: int) -> Done:
    """Carry out one piece of work in a process of its own.

    Raises:
        UsageError: it failed.

    """
    command = [sys.executable, "-m", "pipelines.bench.aggregation_work"]
    done = subprocess.run(
        [*command, str(folder), name, str(count)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        raise UsageError(f"The work {name!r} to measure failed: {reason}.")
    return from_json(done.stdout.splitlines()[-1], type=Done)


def _turns(folder: Path, names: Sequence[str], count: int) -> dict[str, list[Done]]:
    """Side by side: each turn does every work once."""
    done: dict[str, list[Done]] = {name: [] for name in names}
    for _ in range(TURNS):
        for name in names:
            done[name].append(work(folder, name, count))
    return done


def _median(done: Iterable[Done], field: str) -> float:
    return float(statistics.median(getattr(item, field) for item in done))
