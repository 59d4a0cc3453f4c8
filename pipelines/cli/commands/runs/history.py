"""``mledgeops runs | show``: past runs and runs under way, as MLflow has them."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from fl_runtime.run.mlflow_runs import mlflow_client
from pipelines.cli.options import declare
from pipelines.cli.output import answer, duration, moment, table
from pipelines.desk import clouds
from pipelines.desk.runs import EVALUATE, RunArchive, RunResults, RunSummary, check_run_id
from pipelines.errors import UsageError

NO_RUNS = "no runs yet: start one with `mledgeops run APP`"


def add_parser(commands: Any) -> None:
    """Declare the commands."""
    declare(commands.add_parser("runs"), list_runs)
    show = commands.add_parser("show")
    show.add_argument("run", help="the run's id")
    declare(show, show_run)


def list_runs(arguments: argparse.Namespace) -> int:
    """All runs, newest first."""
    with clouds.use_store(arguments.cloud) as exists:
        found = RunArchive(mlflow_client()).runs() if exists else []
    text = runs_text(found) if found else NO_RUNS
    answer(arguments.json, {"runs": [as_json(summary) for summary in found]}, text)
    return 0


def show_run(arguments: argparse.Namespace) -> int:
    """One run with its rounds."""
    run = check_run_id(arguments.run)
    with clouds.use_store(arguments.cloud) as exists:
        if not exists:
            raise UsageError(f"There is no run {run!r}: start one with `mledgeops run APP`.")
        archive = RunArchive(mlflow_client())
        summary, rounds = archive.get(run)
        results = archive.results(summary.mlflow_run_id)
    document = {**as_json(summary), "rounds": rounds, **msgspec.to_builtins(results)}
    answer(arguments.json, document, run_text(summary, rounds, results))
    return 0


def as_json(summary: RunSummary) -> dict[str, Any]:
    """A run as JSON shows it: outcome and reason only when there is one."""
    values: dict[str, Any] = msgspec.to_builtins(summary)
    values["started"] = moment(summary.started)
    for name in ("outcome", "reason"):
        if not values[name]:
            del values[name]
    return values


def runs_text(found: list[RunSummary]) -> str:
    """The list of runs as a table."""
    columns = ["run", "app", "status", "devices", "rounds", "metric", "value", "took", "started"]
    rows = [
        [
            run.run_id,
            run.app,
            run.status,
            run.devices,
            run.rounds,
            run.metric,
            run.value,
            duration(run.seconds),
            moment(run.started),
        ]
        for run in found
    ]
    return table(columns, rows)


def run_text(
    summary: RunSummary, rounds: list[dict[str, float]], results: RunResults | None = None
) -> str:
    """One run: its fields, a table of its rounds, and what the app left."""
    fields = [f"{key.ljust(24)}{_shown(value)}" for key, value in as_json(summary).items()]
    names = sorted({name for record in rounds for name in record if name.startswith(EVALUATE)})
    columns = ["round", *names, "participants", "seconds.total", "seconds.overhead"]
    rows = [[record.get(name) for name in columns] for record in rounds]
    return "\n".join([*fields, "", table(columns, rows), *_results_text(results or RunResults())])


def _results_text(results: RunResults) -> list[str]:
    lines = []
    if results.failures:
        failed = [
            [f.kind, f.code, f.count, f"{f.first_round}-{f.last_round}", f.device, f.reason]
            for f in results.failures
        ]
        headings = ["failed", "code", "times", "rounds", "device", "reason"]
        lines += ["", table(headings, failed)]
    for name, columns in results.tables.items():
        rows = list(zip(*columns.values(), strict=True))
        lines += ["", name, table(list(columns), rows)]
    if results.files:
        shown = [[name, size] for name, size in results.files.items()]
        lines += ["", table(["file", "bytes"], shown)]
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
