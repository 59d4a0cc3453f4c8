"""``mledgeops bench``: measures the flagship run, its processes' memory, the cloud's start,
rollouts and reconciliation.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from pipelines.cli.commands.measure.bench_registry import reconcile_measures, rollout_measures
from pipelines.cli.commands.measure.measure import Measure
from pipelines.cli.output import say, show_json, table
from pipelines.errors import UsageError
from pipelines.local.cloud import LocalCloud
from pipelines.local.home import Home, LocalCloudError

SAMPLE_SECONDS = 0.2
ROLES = {
    "server": "fl_runtime.server",
    "proxy": "fl_runtime.proxy",
    "agents": "edge.agent.fleet",
    "worker": "edge.training.worker",
    "emulator": "pipelines.local.emulators.ministack_main",
    "cloud": "pipelines.local.daemon",
}
MIB = 2**20


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("bench", help="measure the flagship run")
    parser.add_argument(
        "--app",
        type=Path,
        default=Path("notebooks/apps/wind_farm"),
        help="the Flower app to measure",
    )
    parser.add_argument("--devices", type=int, default=4, help="how many devices")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of training")
    parser.add_argument(
        "--rollout-app",
        type=Path,
        default=Path("notebooks/apps/digits"),
        help="the Flower app whose rollout is measured",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PART",
        help="measure this part only: cloud, run, agent, rollout, reconcile",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(function=bench)


def bench(arguments: argparse.Namespace) -> int:
    """Exit 0 when every target is met, 1 when one is not."""
    for app in (arguments.app, arguments.rollout_app):
        if not app.is_dir():
            raise UsageError(
                f"There is no app at {app}: run from the repository, or name one by --app and --rollout-app."
            )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        parts: dict[str, Callable[[], list[Measure]]] = {
            "cloud": lambda: _cloud_start(place / "cloud"),
            "run": lambda: _flagship(place / "run", arguments),
            "agent": lambda: _lone_agent(place / "agent"),
            "rollout": lambda: rollout_measures(place / "rollout", arguments.rollout_app),
            "reconcile": lambda: reconcile_measures(place / "reconcile"),
        }
        if unknown := set(arguments.only) - set(parts):
            raise UsageError(
                f"There is no part {min(unknown)!r} to measure; there are {', '.join(parts)}."
            )
        measures = [
            measure
            for name, part in parts.items()
            if not arguments.only or name in arguments.only
            for measure in part()
        ]
    if arguments.json:
        show_json({"measures": [{**vars(m), "ratio": m.ratio} for m in measures]})
    else:
        say(
            table(
                ["measure", "value", "unit", "target", "ratio"],
                [[m.name, round(m.value, 2), m.unit, m.target, m.ratio] for m in measures],
            )
        )
    return 0 if all(m.ratio is None or m.ratio <= 1 for m in measures) else 1


def _cloud_start(home: Path) -> list[Measure]:
    seconds = []
    for _ in range(2):
        began = time.monotonic()
        with LocalCloud.start(Home(home)):
            seconds.append(time.monotonic() - began)
    return [
        Measure(name="local cloud ready, empty", value=seconds[0], unit="s", target=10.0),
        Measure(name="local cloud ready, again", value=seconds[1], unit="s", target=10.0),
    ]


def _flagship(home: Path, arguments: argparse.Namespace) -> list[Measure]:
    command = [
        sys.executable,
        "-m",
        "pipelines.cli",
        "run",
        str(arguments.app),
        "--devices",
        str(arguments.devices),
    ]
    command += ["--rounds", str(arguments.rounds), "--json"]
    began = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "MLEDGEOPS_HOME": str(home)}
    ) as process:
        peaks = _watch(process)
        seconds = time.monotonic() - began
        report = json.loads(process.stdout.read() if process.stdout else b"{}")
    if report.get("status") != "Succeeded":
        raise UsageError(f"The measured run did not succeed: {report.get('reason', 'no reason')}.")
    return [
        Measure(name="run, everything installed", value=seconds, unit="s", target=120.0),
        *_rounds(report),
        *_memory(peaks),
    ]


def _rounds(report: dict[str, Any]) -> list[Measure]:
    rounds = [record["seconds"] for record in report["rounds"]]
    return [
        Measure(
            name="round overhead, worst",
            value=max(r["overhead"] for r in rounds),
            unit="s",
            target=1.5,
        ),
        Measure(
            name="round overhead, median",
            value=statistics.median(r["overhead"] for r in rounds),
            unit="s",
        ),
        Measure(
            name="round, median", value=statistics.median(r["total"] for r in rounds), unit="s"
        ),
        Measure(name="bytes up, last round", value=report["rounds"][-1]["bytes"]["up"], unit="B"),
        Measure(
            name="bytes down, last round", value=report["rounds"][-1]["bytes"]["down"], unit="B"
        ),
    ]


def _memory(peaks: dict[str, float]) -> list[Measure]:
    targets = {"proxy": 120.0}
    return [
        Measure(
            name=f"peak memory, {role}", value=peaks[role], unit="MiB", target=targets.get(role)
        )
        for role in ROLES
        if role in peaks
    ]


def _watch(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """Peak resident memory in MiB of each kind of process, until the run ends."""
    peaks: dict[str, float] = {}
    while process.poll() is None:
        for child in _descendants(process.pid):
            try:
                role, size = _role(child.cmdline()), child.memory_info().rss / MIB
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


def _role(command: Sequence[str]) -> str:
    return next((role for role, module in ROLES.items() if module in command), "")


def _lone_agent(home: Path) -> list[Measure]:
    """One agent process as a device runs it, idle, without a worker."""
    from pipelines.local.fleet import running_fleet

    with LocalCloud.start(Home(home)) as cloud, cloud.reached():
        from fl_runtime.run.aws import client

        with running_fleet(cloud, "bench", 1, None, client("iot")) as process:
            if process is None:
                raise LocalCloudError(
                    "The bench's own device is running already, so it cannot be measured."
                )
            time.sleep(5.0)
            size = psutil.Process(process.pid).memory_info().rss / MIB
    return [Measure(name="agent without its worker", value=size, unit="MiB", target=80.0)]
