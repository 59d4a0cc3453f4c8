"""``mledgeops fleet``: which device runs which model, since when, and how it does."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from fl_runtime.run.devices import DeviceStatus, DeviceTable
from pipelines.cli.output import moment, say, show_json, table
from pipelines.desk import clouds
from registry.evidence.drift import drift_of


def add_parser(commands: Any) -> None:
    """Declare the commands."""
    fleet = commands.add_parser("fleet", help="show the devices and the model each runs")
    clouds.add_option(fleet)
    fleet.add_argument("--json", action="store_true", help="print one JSON document")
    fleet.set_defaults(function=show_fleet)


def show_fleet(arguments: argparse.Namespace) -> int:
    """All devices that were ever heard of, by fleet and name."""
    with clouds.use(arguments.cloud) as cloud:
        from fl_runtime.run.aws import client

        iot_data = client("iot-data")
        devices = DeviceTable(client("dynamodb"), cloud.deployment.devices_table)
        rows = [_device(status, iot_data) for status in devices.all()]
    rows.sort(key=lambda row: (row["fleet"], row["device"]))
    if arguments.json:
        show_json({"devices": rows})
    elif not rows:
        say("no device has been heard of yet")
    else:
        say(table(list(rows[0]), [list(row.values()) for row in rows]))
    return 0


def _device(status: DeviceStatus, iot_data: Any) -> dict[str, Any]:
    """A device by its last heartbeat; one that is offline by what it reported last (its shadow)."""
    name, beat = status.device, status.heartbeat
    there = beat is not None and beat.state != "offline"
    model, since = (
        (beat.model, moment(beat.since) if beat.since else "")
        if beat is not None and there
        else _reported(name, iot_data)
    )
    served = (
        drift_of({name: beat.serving}) if beat is not None and beat.serving is not None else None
    )
    return {
        "fleet": status.fleet,
        "device": name,
        "model_version": model,
        "state": beat.state if beat is not None else "malformed heartbeat",
        "since": since,
        "last_seen": moment(status.last_seen),
        "predictions": served.predictions if served is not None else 0,
        "drift": round(served.score, 2) if served is not None and served.devices else None,
        "residual": round(served.residual, 2)
        if served is not None and served.residual is not None
        else None,
    }


def _reported(device: str, iot_data: Any) -> tuple[str, str]:
    try:
        shadow = msgspec.json.decode(iot_data.get_thing_shadow(thingName=device)["payload"].read())
    except iot_data.exceptions.ResourceNotFoundException:
        return "", ""
    model = shadow.get("state", {}).get("reported", {}).get("model", {})
    stamp = (
        shadow.get("metadata", {})
        .get("reported", {})
        .get("model", {})
        .get("version", {})
        .get("timestamp")
    )
    return str(model.get("version", "")), moment(float(stamp)) if stamp else ""
