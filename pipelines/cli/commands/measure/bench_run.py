"""Measures of the local cloud's start, of a run and its processes, and of an idle agent."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from pipelines.cli.commands.measure.measure import Measure
from pipelines.desk import wiring
from pipelines.errors import UsageError
from pipelines.local.cloud import LocalCloud
from pipelines.local.emulator import MODULE as EMULATOR
from pipelines.local.fleet import running_fleet
from pipelines.local.home import VARIABLE, Home, LocalCloudError

SAMPLE_SECONDS = 0.2
ROLES = {
    "server": "fl_runtime.server",
    "proxy": "fl_runtime.proxy",
    "agents": "edge.agent.fleet",
    "worker": "edge.training.worker",
    "emulator": EMULATOR,
    "cloud": "pipelines.local.daemon",
}
"""The module that a process of each role runs."""
MEMORY_TARGETS = {"proxy": 120.0}
MIB = 2**20


def start_measures(home: Path) -> list[Measure]:
    """How long a local cloud takes to start, in a new home and in the same home again."""
    seconds = []
    for _ in range(2):
        began = time.monotonic()
        with LocalCloud.start(Home(home)):
            seconds.append(time.monotonic() - began)
    return [
        Measure(name="local cloud ready, empty", value=seconds[0], unit="s", target=10.0),
        Measure(name="local cloud ready, again", value=seconds[1], unit="s", target=10.0),
    ]


def run_measures(home: Path, app: Path, devices: int, rounds: int) -> list[Measure]:
    """A run by the command line: its time, its rounds, and the memory of its processes."""
    began = time.monotonic()
    with subprocess.Popen(
        run_command(app, devices=devices, rounds=rounds),
        stdout=subprocess.PIPE,
        env={**os.environ, VARIABLE: str(home)},
    ) as process:
        peaks = _peak_memory(process)
        seconds = time.monotonic() - began
        report = succeeded(process.stdout.read() if process.stdout else b"")
    return [
        Measure(name="run, everything installed", value=seconds, unit="s", target=120.0),
        *round_measures(report["rounds"]),
        *memory_measures(peaks),
    ]


def run_command(app: Path, *options: str, devices: int, rounds: int) -> list[str]:
    """``mledgeops run`` as a user starts it, with a JSON report."""
    numbers = ["--devices", str(devices), "--rounds", str(rounds)]
    return [sys.executable, "-m", "pipelines.cli", "run", str(app), *numbers, *options, "--json"]


def succeeded(output: bytes) -> dict[str, Any]:
    """A run's report.

    Raises:
        UsageError: The run did not succeed.

    """
    report: dict[str, Any] = json.loads(output or b"{}")
    if report.get("status") != "Succeeded":
        reason = report.get("reason", "no reason")
        raise UsageError(f"The run to measure did not succeed: {reason}.")
    return report


def round_measures(rounds: list[dict[str, Any]]) -> list[Measure]:
    """Times and bytes of a run's rounds."""
    overheads = [record["seconds"]["overhead"] for record in rounds]
    totals = [record["seconds"]["total"] for record in rounds]
    sent = rounds[-1]["bytes"]
    return [
        Measure(name="round overhead, worst", value=max(overheads), unit="s", target=1.5),
        Measure(name="round overhead, median", value=statistics.median(overheads), unit="s"),
        Measure(name="round, median", value=statistics.median(totals), unit="s"),
        Measure(name="bytes up, last round", value=sent["up"], unit="B"),
        Measure(name="bytes down, last round", value=sent["down"], unit="B"),
    ]


def memory_measures(peaks: dict[str, float]) -> list[Measure]:
    """Peak memory (MiB) of each role's largest process."""
    return [
        Measure(
            name=f"peak memory, {role}",
            value=peaks[role],
            unit="MiB",
            target=MEMORY_TARGETS.get(role),
        )
        for role in ROLES
        if role in peaks
    ]


def agent_measures(home: Path) -> list[Measure]:
    """Memory of one idle agent process, without a worker."""
    with (
        LocalCloud.start(Home(home)) as cloud,
        cloud.reached(),
        running_fleet(cloud, wiring.fleet_clients(), "bench", 1, None) as process,
    ):
        if process is None:
            raise LocalCloudError("The device to measure is running already.")
        time.sleep(5.0)
        size = psutil.Process(process.pid).memory_info().rss / MIB
    return [Measure(name="agent without its worker", value=size, unit="MiB", target=80.0)]


def _peak_memory(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """Peak resident memory (MiB) by role, sampled until the process ends."""
    peaks: dict[str, float] = {}
    while process.poll() is None:
        for child in _descendants(process.pid):
            try:
                role, size = role_of(child.cmdline()), child.memory_info().rss / MIB
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            if role:
                peaks[role] = max(peaks.get(role, 0.0), size)
        time.sleep(SAMPLE_SECONDS)
    return peaks


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


def role_of(command: Sequence[str]) -> str:
    """The role of a process by its command line; empty for other processes."""
    return next((role for role, module in ROLES.items() if module in command), "")
