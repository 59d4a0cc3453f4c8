"""``mledgeops fleet``: the devices, the model that each runs, and how it performs."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from fl_runtime.run.aws import client
from fl_runtime.run.devices import DeviceTable
from fl_runtime.run.mlflow_runs import mlflow_client
from pipelines.cli.options import declare
from pipelines.cli.output import answer, table
from pipelines.desk import clouds, wiring
from pipelines.desk.drift_rows import drift_rows
from pipelines.desk.fleet_rows import fleet_rows
from pipelines.desk.refusals import Refusal, refusals
from pipelines.desk.runs import RunArchive
from pipelines.errors import UsageError

RUNS = 20
"""Newest runs whose refusals are shown."""


def add_parser(commands: Any) -> None:
    """Declare the command."""
    fleet = commands.add_parser("fleet")
    fleet.add_argument(
        "--refusals",
        action="store_true",
        help="instead: which updates and commands were refused, by device and reason",
    )
    fleet.add_argument(
        "--runs", type=int, default=RUNS, help=f"with --refusals: of how many runs (default {RUNS})"
    )
    fleet.add_argument(
        "--drift",
        action="store_true",
        help="instead of devices: how far the models' inputs have moved, by feature and group",
    )
    declare(fleet, show_fleet)


def show_fleet(arguments: argparse.Namespace) -> int:
    """All devices that were ever heard of, by fleet and name; or what was refused of them."""
    if arguments.refusals:
        return _show_refusals(arguments)
    if arguments.drift:
        return _show_drift(arguments)
    with clouds.use(arguments.cloud) as cloud:
        table_name = cloud.deployment.devices_table
        rows = fleet_rows(client("dynamodb"), client("iot-data"), table_name)
    text = "no device has been heard of yet"
    if rows:
        text = table(list(rows[0]), [list(row.values()) for row in rows])
    answer(arguments.json, {"devices": rows}, text)
    return 0


def _show_drift(arguments: argparse.Namespace) -> int:
    with clouds.use(arguments.cloud) as cloud:
        devices = DeviceTable(client("dynamodb"), cloud.deployment.devices_table)
        rows = drift_rows(devices.all())
    text = "no device has reported enough predictions to tell whether its inputs have drifted"
    if rows:
        text = table(list(rows[0]), [list(row.values()) for row in rows])
    answer(arguments.json, {"drift": rows}, text)
    return 0


def _show_refusals(arguments: argparse.Namespace) -> int:
    if arguments.runs < 1:
        raise UsageError(f"--runs is {arguments.runs}; it must be at least 1.")
    with clouds.use(arguments.cloud) as cloud:
        runs = [run.run_id for run in RunArchive(mlflow_client()).runs()[: arguments.runs]]
        found = refusals(wiring.objects(cloud.deployment), runs)
    document = {"refusals": [msgspec.to_builtins(item) for item in found]}
    answer(arguments.json, document, refusals_text(found, arguments.runs))
    return 0


def refusals_text(found: list[Refusal], runs: int) -> str:
    """Refusals as a table; ``runs``: how many were looked at."""
    if not found:
        return f"nothing was refused in the rounds of the last {runs} runs"
    columns = ["device", "code", "count", "last in", "reason"]
    rows = [
        [item.device, item.code, item.count, f"{item.run}/{item.round}", item.reason]
        for item in found
    ]
    return table(columns, rows)
