"""``mledgeops local up | down | status``: a local cloud that stays, for notebooks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec

from edge.training.app_bundle import load_app
from pipelines.cli.output import say, show_json
from pipelines.errors import UsageError
from pipelines.local.cloud import LocalCloud
from pipelines.local.home import Home, LocalCloudError
from pipelines.run.option_table import RunOptions
from pipelines.run.plan import plan


def add_parser(commands: Any) -> None:
    """Declare the commands."""
    local = commands.add_parser("local", help="a local cloud that stays").add_subparsers(
        dest="action", required=True, metavar="up|down|status"
    )
    up = local.add_parser("up", help="start it")
    up.add_argument(
        "--gateway-port", type=int, default=0, help="port of the AWS gateway (default: a free one)"
    )
    up.add_argument(
        "--app", type=Path, help="keep devices with this Flower app running, for schedules"
    )
    up.add_argument(
        "--devices", type=int, default=0, help="how many of them (default: the app's num-devices)"
    )
    for parser, function in (
        (up, start),
        (local.add_parser("down", help="stop it"), stop),
        (local.add_parser("status", help="show it"), status),
    ):
        parser.add_argument("--json", action="store_true", help="print one JSON document")
        parser.set_defaults(function=function)


def start(arguments: argparse.Namespace) -> int:
    """Start a cloud that outlives this command."""
    home = Home.default()
    running = LocalCloud.attach(home)
    if running is not None:
        raise LocalCloudError(
            f"A local cloud is running in {home.root} already (process {running.info.pid})."
        )
    standing = []
    if arguments.app is not None:
        plan(load_app(arguments.app), RunOptions(devices=arguments.devices))
        standing = ["--app", str(arguments.app.resolve()), "--devices", str(arguments.devices)]
    elif arguments.devices:
        raise UsageError("--devices needs --app: devices are there to run an app.")
    cloud = LocalCloud.start(
        home, stays=True, gateway_port=arguments.gateway_port, standing=standing
    )
    return _show(cloud, arguments.json)


def stop(arguments: argparse.Namespace) -> int:
    """End it."""
    home = Home.default()
    if not LocalCloud.stop_running(home):
        raise LocalCloudError(f"No local cloud is running in {home.root}.")
    show_json({"status": "down"}) if arguments.json else say("stopped")
    return 0


def status(arguments: argparse.Namespace) -> int:
    """Exit 0 when it runs, 1 when not."""
    cloud = LocalCloud.attach(Home.default())
    if cloud is None:
        show_json({"status": "down"}) if arguments.json else say(
            f"no local cloud is running in {Home.default().root}"
        )
        return 1
    return _show(cloud, arguments.json)


def _show(cloud: LocalCloud, as_json: bool) -> int:
    if as_json:
        show_json(
            {
                "status": "up",
                "home": str(cloud.home.root),
                **msgspec.to_builtins(cloud.info),
                "environment": cloud.environment(),
            }
        )
        return 0
    say(f"local cloud up in {cloud.home.root} (process {cloud.info.pid})")
    say(f"  AWS endpoint        http://127.0.0.1:{cloud.info.gateway_port}")
    say(f"  SageMaker endpoint  http://127.0.0.1:{cloud.info.sagemaker_port}")
    say(f"  MQTT                127.0.0.1:{cloud.info.mqtt_port}")
    say(f"  MLflow              {cloud.home.mlflow_uri}")
    return 0
