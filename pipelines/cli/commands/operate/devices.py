"""``mledgeops fleet``: the devices, the model that each runs, and how it performs."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import Heartbeat
from edge.protocol.text import parse_json, printable
from fl_runtime.run.aws import client
from fl_runtime.run.blocking import Block, BlockList
from fl_runtime.run.devices import DeviceStatus, DeviceTable
from fl_runtime.run.eligibility import foreign_orders
from fl_runtime.run.mlflow_runs import mlflow_client
from pipelines.cli.options import declare
from pipelines.cli.output import answer, moment, table
from pipelines.desk import clouds, wiring
from pipelines.desk.refusals import Refusal, refusals
from pipelines.desk.runs import RunArchive
from pipelines.errors import UsageError
from registry.evidence.drift import drift_of

RUNS = 20
"""Newest runs whose refusals are shown."""
_LAST_MOMENT = 4e9
"""Unix seconds, in the year 2096, as in a heartbeat."""


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
    declare(fleet, show_fleet)


def show_fleet(arguments: argparse.Namespace) -> int:
    """All devices that were ever heard of, by fleet and name; or what was refused of them."""
    if arguments.refusals:
        return _show_refusals(arguments)
    with clouds.use(arguments.cloud) as cloud:
        iot_data, dynamodb = client("iot-data"), client("dynamodb")
        table_name = cloud.deployment.devices_table
        blocked = BlockList(dynamodb, table_name).read()
        devices = DeviceTable(dynamodb, table_name).all()
        rows = [
            {**device_row(status, iot_data), "blocked": _blocked(blocked.get(status.device))}
            for status in devices
        ]
    rows.sort(key=lambda row: (row["fleet"], row["device"]))
    text = "no device has been heard of yet"
    if rows:
        text = table(list(rows[0]), [list(row.values()) for row in rows])
    answer(arguments.json, {"devices": rows}, text)
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


def _blocked(block: Block | None) -> str:
    return f"by {block.by}: {block.reason}" if block is not None else ""


def device_row(status: DeviceStatus, iot_data: Any) -> dict[str, Any]:
    """A device by its last heartbeat; its model by its shadow where it is offline."""
    beat = status.heartbeat
    model, since = _model(status.device, beat, iot_data)
    return {
        "fleet": status.fleet,
        "device": status.device,
        "model_version": model,
        "state": beat.state if beat is not None else "malformed heartbeat",
        "since": since,
        "last_seen": moment(status.last_seen),
        **_serving(status.device, beat),
        "left_out": foreign_orders(beat) if beat is not None and beat.state != "offline" else "",
    }


def _model(device: str, beat: Heartbeat | None, iot_data: Any) -> tuple[str, str]:
    """The model that a device runs, and since when (ISO 8601, or empty)."""
    if beat is not None and beat.state != "offline":
        return beat.model, moment(beat.since) if beat.since else ""
    try:
        payload = iot_data.get_thing_shadow(thingName=device)["payload"].read()
    except iot_data.exceptions.ResourceNotFoundException:
        return "", ""
    return reported_model(payload)


def reported_model(shadow: bytes) -> tuple[str, str]:
    """The model of a device's shadow, and since when (ISO 8601). Both are empty when it has none,
    or something else in its place: a device writes what it likes into its own shadow.
    """
    try:
        document: dict[str, Any] = parse_json(shadow, dict[str, Any], "The shadow")
    except ProtocolError:
        return "", ""
    version = _nested(document, "state", "reported", "model", "version")
    stamp = _nested(document, "metadata", "reported", "model", "version", "timestamp")
    if not isinstance(version, str):
        return "", ""
    known = isinstance(stamp, int | float) and 0 < stamp < _LAST_MOMENT
    return printable(version, 80), moment(float(stamp)) if known else ""


def _serving(device: str, beat: Heartbeat | None) -> dict[str, Any]:
    """Predictions so far, and the drift of inputs and residuals where it is known."""
    if beat is None or beat.serving is None:
        return {"predictions": 0, "drift": None, "residual": None}
    served = drift_of({device: beat.serving})
    return {
        "predictions": served.predictions,
        "drift": round(served.score, 2) if served.devices else None,
        "residual": None if served.residual is None else round(served.residual, 2),
    }


def _nested(document: Any, *keys: str) -> Any:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document
