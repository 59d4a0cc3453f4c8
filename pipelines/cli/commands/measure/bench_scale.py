"""Seconds a round, by the size of the fleet and beside Flower's own deployment."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from pipelines.bench.cpu import CpuMeter
from pipelines.bench.flower import run_on_flower
from pipelines.bench.stamps import round_seconds
from pipelines.cli.commands.measure.bench_run import run_command, succeeded
from pipelines.cli.commands.measure.measure import Measure
from pipelines.errors import UsageError
from pipelines.local.home import VARIABLE

APP = Path(__file__).parents[3] / "bench" / "app"
SMALL, LARGE = 100_000, 11_700_000
"""Parameters: a small network's, and ResNet-18's."""
ROUNDS = 7
"""The first imports the app, and of the others' five differences the median counts."""
SHARE_OF_FLOWER = {SMALL: 1 / 20, LARGE: 1 / 6}
"""Seconds a round, as a part of what Flower's own deployment takes in the same run."""
USUAL, LARGEST = 64, 1000
"""Devices of the fleets whose seconds a device are compared."""
TARGETS = {USUAL: 1.2, LARGEST: 15.0}
"""Seconds a round of 100,000 parameters, by the number of devices."""
GIVE_UP_SECONDS = 1800.0


def first_and_last_measures(home: Path, devices: int = 8) -> list[Measure]:
    """From the start of ``mledgeops run`` to the end of its first round, and from its last to its
    exit.
    """
    command = [*run_command(APP, *_settings(home, devices, SMALL), devices=devices, rounds=3)]
    command.remove("--json")
    began, told = time.monotonic(), []
    with (
        subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, VARIABLE: str(home)}
        ) as process,
        CpuMeter(process.pid) as meter,
    ):
        for line in process.stdout or ():
            if line.startswith("round "):
                told.append((time.monotonic(), meter.seconds()))
    if process.returncode or not told:
        raise UsageError(f"The run to measure ended with code {process.returncode}.")
    ended, used = time.monotonic(), meter.seconds()
    (first, until_first), (last, until_last) = told[0], told[-1]
    return [
        Measure(
            name=f"start to first round, {devices} devices",
            value=first - began,
            unit="s",
            target=7.0,
        ),
        Measure(
            name=f"last round to exit, {devices} devices", value=ended - last, unit="s", target=6.0
        ),
        Measure(name="CPU, start to first round", value=until_first, unit="s"),
        Measure(name="CPU, last round to exit", value=used - until_last, unit="s"),
    ]


def scale_measures(home: Path, sizes: list[int], rounds: int = ROUNDS) -> list[Measure]:
    """Seconds a round of 100,000 parameters, for fleets of several sizes."""
    return by_size({count: _ours(home / str(count), count, SMALL, rounds) for count in sizes})


def by_size(seconds: Mapping[int, float]) -> list[Measure]:
    """Seconds a round by the number of devices, and a device's share in the largest fleet, which is
    to be no more than in the usual one.
    """
    measures = [
        Measure(
            name=f"round, {count} devices, 100k", value=value, unit="s", target=TARGETS.get(count)
        )
        for count, value in seconds.items()
    ]
    if {USUAL, LARGEST} <= seconds.keys():
        measures.append(
            Measure(
                name=f"seconds a device, {LARGEST} devices",
                value=seconds[LARGEST] / LARGEST,
                unit="s",
                target=seconds[USUAL] / USUAL,
            )
        )
    return measures


def peer_measures(home: Path, devices: int, parameters: int, rounds: int) -> list[Measure]:
    """Seconds a round of the same app here and on Flower's own deployment, one after the other."""
    ours = _ours(home / "ours", devices, parameters, rounds)
    stamps = home / "flower" / "stamps"
    stamps.mkdir(parents=True)
    settings = {
        "num-devices": devices,
        "num-server-rounds": rounds,
        "parameters": parameters,
        "stamps": str(stamps),
    }
    run_on_flower(home / "flower" / "home", APP, devices, settings, GIVE_UP_SECONDS)
    flower = statistics.median(round_seconds(stamps))
    name = f"{devices} devices, {parameters:,}"
    return [
        Measure(name=f"round on Flower's deployment, {name}", value=flower, unit="s"),
        Measure(
            name=f"round, {name}",
            value=ours,
            unit="s",
            target=flower * SHARE_OF_FLOWER.get(parameters, 1.0),
        ),
    ]


def _ours(home: Path, devices: int, parameters: int, rounds: int) -> float:
    """The median of the seconds a round of a run on a local cloud of its own."""
    options = _settings(home, devices, parameters)
    done = subprocess.run(
        run_command(APP, *options, devices=devices, rounds=rounds),
        capture_output=True,
        env={**os.environ, VARIABLE: str(home)},
        check=False,
        timeout=GIVE_UP_SECONDS,
    )
    succeeded(done.stdout)
    return statistics.median(round_seconds(home / "stamps"))


def _settings(home: Path, devices: int, parameters: int) -> list[str]:
    stamps = home / "stamps"
    stamps.mkdir(parents=True)
    values = {"num-devices": devices, "parameters": parameters, "stamps": stamps}
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
