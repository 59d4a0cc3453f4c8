"""``mledgeops bench``: measures the cloud's start, runs, rounds beside Flower's own deployment,
memory, rollouts, reconciliation.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.cli.commands.measure.bench_aggregation import (
    filled,
    mean_measures,
    memory_measures_of_tasks,
    robust_measures,
)
from pipelines.cli.commands.measure.bench_registry import reconcile_measures, rollout_measures
from pipelines.cli.commands.measure.bench_run import agent_measures, run_measures, start_measures
from pipelines.cli.commands.measure.bench_scale import (
    ROUNDS,
    SMALL,
    first_and_last_measures,
    peer_measures,
    scale_measures,
)
from pipelines.cli.commands.measure.bench_workers import worker_measures
from pipelines.cli.commands.measure.measure import Measure
from pipelines.cli.options import declare
from pipelines.cli.output import answer, table
from pipelines.errors import UsageError

SIZES = [8, 64]
Part = Callable[[], list[Measure]]


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("bench")
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
        help="measure this part only: cloud, start, run, agent, scale, flower, rollout, reconcile, "
        "mean, robust, workers, memory",
    )
    parser.add_argument(
        "--sizes",
        type=int,
        action="append",
        default=[],
        metavar="N",
        help=f"fleets whose rounds of 100,000 parameters are measured (default {SIZES})",
    )
    parser.add_argument(
        "--parameters",
        type=int,
        default=SMALL,
        help="size of the model that Flower's own deployment is compared with (default 100,000)",
    )
    declare(parser, bench, cloud=False)


def bench(arguments: argparse.Namespace) -> int:
    """Exit 0 when every target is met, 1 when one is not."""
    for app in (arguments.app, arguments.rollout_app):
        if not app.is_dir():
            raise UsageError(
                f"There is no app at {app}: run from the repository, or name one by --app and "
                "--rollout-app."
            )
    with tempfile.TemporaryDirectory() as folder:
        parts = chosen_parts(_parts(Path(folder), arguments), arguments.only)
        measures = [measure for part in parts for measure in part()]
    document = {"measures": [{**vars(m), "ratio": m.ratio} for m in measures]}
    rows = [[m.name, round(m.value, 2), m.unit, m.target, m.ratio] for m in measures]
    text = table(["measure", "value", "unit", "target", "ratio"], rows)
    answer(arguments.json, document, text)
    return 0 if all(measure.is_met for measure in measures) else 1


def chosen_parts(parts: dict[str, Part], only: list[str]) -> list[Part]:
    """The parts that were asked for, in their order.

    Raises:
        UsageError: There is no such part.

    """
    if unknown := set(only) - set(parts):
        raise UsageError(
            f"There is no part {min(unknown)!r} to measure; there are {', '.join(parts)}."
        )
    return [part for name, part in parts.items() if not only or name in only]


def _parts(folder: Path, arguments: argparse.Namespace) -> dict[str, Part]:
    """The parts by name, each with a local cloud of its own."""
    app, devices, rounds = arguments.app, arguments.devices, arguments.rounds
    small = arguments.parameters <= SMALL
    return {
        "cloud": lambda: start_measures(folder / "cloud"),
        "start": lambda: first_and_last_measures(folder / "start"),
        "run": lambda: run_measures(folder / "run", app, devices, rounds),
        "agent": lambda: agent_measures(folder / "agent"),
        "scale": lambda: scale_measures(folder / "scale", arguments.sizes or SIZES),
        "flower": lambda: peer_measures(
            folder / "flower", 8 if small else 4, arguments.parameters, ROUNDS
        ),
        "rollout": lambda: rollout_measures(folder / "rollout", arguments.rollout_app),
        "reconcile": lambda: reconcile_measures(folder / "reconcile"),
        "mean": lambda: mean_measures(filled(folder / "mean")),
        "robust": lambda: robust_measures(filled(folder / "robust")),
        "workers": lambda: worker_measures(folder / "workers"),
        "memory": lambda: memory_measures_of_tasks(filled(folder / "memory")),
    }
