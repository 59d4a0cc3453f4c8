"""``mledgeops local up | down | status``: a local cloud that stays, for notebooks and schedules."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import msgspec

from edge.training.app_bundle import load_app
from fl_runtime.run.aws import client
from pipelines.cli.options import declare
from pipelines.cli.output import answer
from pipelines.errors import UsageError
from pipelines.local.cloud import STOP_SECONDS, LocalCloud, stop_running
from pipelines.local.home import Home, LocalCloudError
from pipelines.local.sagemaker.executions import ExecutionFiles
from pipelines.run.executions import Executions
from pipelines.run.option_table import RunOptions
from pipelines.run.plan import plan


def add_parser(commands: Any) -> None:
    """Declare the commands."""
    local = commands.add_parser("local").add_subparsers(
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
    declare(up, start, cloud=False)
    down = local.add_parser("down", help="stop it")
    down.add_argument(
        "--stop-runs", action="store_true", help="stop the runs under way first, in order"
    )
    declare(down, stop, cloud=False)
    declare(local.add_parser("status", help="show it"), status, cloud=False)


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
        plan(load_app(arguments.app), RunOptions(devices=arguments.devices))  # checks them
        standing = ["--app", str(arguments.app.resolve()), "--devices", str(arguments.devices)]
    elif arguments.devices:
        raise UsageError("--devices needs --app: devices are there to run an app.")
    port = arguments.gateway_port
    cloud = LocalCloud.start(home, stays=True, gateway_port=port, standing=standing)
    return _show(cloud, as_json=arguments.json)


def stop(arguments: argparse.Namespace) -> int:
    """Stop it. While a run is under way only when asked to: the run would end without a model."""
    home = Home.default()
    cloud, going = LocalCloud.attach(home), ExecutionFiles(home.executions).under_way()
    if cloud is not None and going and not arguments.stop_runs:
        name = going[0].split(":pipeline/")[1]
        raise UsageError(
            f"A run is under way in {home.root} ({name}): wait for it, stop it where it was "
            "started, or give --stop-runs."
        )
    if cloud is not None and going:
        _stop_runs(cloud, going)
    if not stop_running(home):
        raise LocalCloudError(f"No local cloud is running in {home.root}.")
    answer(arguments.json, {"status": "down"}, "stopped")
    return 0


def _stop_runs(cloud: LocalCloud, going: list[str]) -> None:
    """Stop pipeline executions and wait until they have ended, or for half a minute."""
    files, deadline = ExecutionFiles(cloud.home.executions), time.monotonic() + STOP_SECONDS
    with cloud.reached():
        for arn in going:
            Executions(client("sagemaker")).stop(arn)
    while files.under_way() and time.monotonic() < deadline:
        time.sleep(0.2)


def status(arguments: argparse.Namespace) -> int:
    """Exit 0 when it runs, 1 when it does not."""
    home = Home.default()
    cloud = LocalCloud.attach(home)
    if cloud is None:
        answer(arguments.json, {"status": "down"}, f"no local cloud is running in {home.root}")
        return 1
    return _show(cloud, as_json=arguments.json)


def _show(cloud: LocalCloud, *, as_json: bool) -> int:
    document = {
        "status": "up",
        "home": str(cloud.home.root),
        **msgspec.to_builtins(cloud.info),
        "environment": cloud.environment(),
    }
    answer(as_json, document, cloud_text(cloud))
    return 0


def cloud_text(cloud: LocalCloud) -> str:
    """A running cloud and its endpoints."""
    info = cloud.info
    return "\n".join(
        [
            f"local cloud up in {cloud.home.root} (process {info.pid})",
            f"  AWS endpoint        http://127.0.0.1:{info.gateway_port}",
            f"  SageMaker endpoint  http://127.0.0.1:{info.sagemaker_port}",
            f"  MQTT                127.0.0.1:{info.mqtt_port}",
            f"  MLflow              {cloud.home.mlflow_uri}",
        ]
    )
