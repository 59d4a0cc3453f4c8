"""``mledgeops fleet | trace``: which device runs what, and how everything hangs together."""

from __future__ import annotations

import argparse
import datetime
from typing import Any

import msgspec

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import Heartbeat, decode
from pipelines import clouds
from pipelines.commands.models import use_store
from pipelines.commands.output import say, show_json, table


def add_parser(commands: Any) -> None:
    """Declare the commands."""
    fleet = commands.add_parser("fleet", help="show the devices and the model each runs")
    trace = commands.add_parser("trace", help="walk the chain of a run from any of its names")
    trace.add_argument("name", help="a run, an execution's or package's ARN, an MLflow run, NAME/NUMBER, a digest, a device")
    for parser, function in ((fleet, show_fleet), (trace, show_trace)):
        clouds.add_option(parser)
        parser.add_argument("--json", action="store_true", help="print one JSON document")
        parser.set_defaults(function=function)


def show_fleet(arguments: argparse.Namespace) -> int:
    """All devices that were ever heard of, by fleet and name."""
    with clouds.use(arguments.cloud) as cloud:
        from fl_runtime.aws import client

        iot_data = client("iot-data")
        pages = client("dynamodb").get_paginator("scan").paginate(TableName=cloud.deployment.devices_table)
        rows = [_device(item, iot_data) for page in pages for item in page["Items"]]
    rows.sort(key=lambda row: (row["fleet"], row["device"]))
    if arguments.json:
        show_json({"devices": rows})
    elif not rows:
        say("no device has been heard of yet")
    else:
        say(table(list(rows[0]), [list(row.values()) for row in rows]))
    return 0


def show_trace(arguments: argparse.Namespace) -> int:
    """The chain, as a tree."""
    use_store()
    from mlflow import MlflowClient

    from registry.lineage import Lineage
    from registry.mlflow_registry import MlflowRegistry

    chain = Lineage(MlflowClient(), MlflowRegistry()).trace(arguments.name)
    if arguments.json:
        show_json(chain)
        return 0
    say(f"pipeline execution  {chain['pipeline_execution_arn']}")
    say(f"└─ state machine execution  {chain['execution_arn']}")
    say(f"   └─ run  {chain['run_id']}  ({chain['status']}; app {chain['app']} {chain['app_digest'][:12]}, fleet {chain['fleet']})")
    say(f"      ├─ MLflow run  {chain['mlflow_run_id']}")
    for entry in chain["rounds"]:
        say(f"      ├─ round {entry['round']}")
        for update in entry["updates"]:
            say(f"      │  └─ {update['device']}  {update['phase']}  {update['status']} {update['code'] or update['digest'][:12]}")
    for version in chain["versions"]:
        say(f"      └─ version {version['model_version']}  {version['approval']}{', champion' if version['champion'] else ''}")
        say(f"         ├─ weights  {version['model_digest']}")
        say(f"         └─ model package  {version['model_package_arn']}")
    return 0


def _device(item: dict[str, Any], iot_data: Any) -> dict[str, Any]:
    """A device by its last heartbeat and its shadow. ``since``: when it reported the model it runs."""
    name = item["device"]["S"]
    state: str
    try:
        state = decode(item["body"]["S"], Heartbeat).state
    except ProtocolError:
        state = "malformed heartbeat"
    reported, since = _reported(name, iot_data)
    return {
        "fleet": item["fleet"]["S"], "device": name, "model_version": reported, "state": state, "since": since,
        "last_seen": _moment(float(item["last_seen"]["N"]) / 1000),
    }  # fmt: skip


def _reported(device: str, iot_data: Any) -> tuple[str, str]:
    try:
        shadow = msgspec.json.decode(iot_data.get_thing_shadow(thingName=device)["payload"].read())
    except iot_data.exceptions.ResourceNotFoundException:
        return "", ""
    model = shadow.get("state", {}).get("reported", {}).get("model", {})
    stamp = shadow.get("metadata", {}).get("reported", {}).get("model", {}).get("version", {}).get("timestamp")
    return str(model.get("version", "")), _moment(float(stamp)) if stamp else ""


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
