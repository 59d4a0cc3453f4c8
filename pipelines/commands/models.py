"""``mledgeops models | approve | reject``."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import msgspec

from pipelines import clouds
from pipelines.commands.output import say, show_json, table
from pipelines.local.cloud import LocalCloud
from pipelines.local.fleet import await_devices, enrolled, running_fleet
from pipelines.local.home import Home
from pipelines.run_options import UsageError
from registry.mlflow_registry import Version

DEVICE_SECONDS = 60.0


def add_parser(commands: Any) -> None:
    """Declare the commands."""
    listing = commands.add_parser("models", help="list model versions")
    listing.set_defaults(function=list_models)
    listing.add_argument("--json", action="store_true", help="print one JSON document")
    for name, function, text in (("approve", approve, "approve a version: it becomes champion"), ("reject", reject, "reject a version")):
        parser = commands.add_parser(name, help=text)
        parser.add_argument("version", help="a version number, NAME/NUMBER, or the model package's ARN")
        parser.add_argument("--reason", required=True, help="why; kept in both registries")
        parser.add_argument("--json", action="store_true", help="print one JSON document")
        parser.set_defaults(function=function)
    back = commands.add_parser("rollback", help="make an earlier approved version champion again")
    back.add_argument("version", nargs="?", default="", help="which (default: the newest approved before the champion)")
    back.add_argument("--json", action="store_true", help="print one JSON document")
    back.set_defaults(function=rollback)


def list_models(arguments: argparse.Namespace) -> int:
    """All versions, newest first."""
    from registry.mlflow_registry import MlflowRegistry

    use_store()
    versions = MlflowRegistry().versions()
    if arguments.json:
        show_json({"models": [msgspec.to_builtins(version) for version in versions]})
    elif not versions:
        say("no models yet: `mledgeops run APP` makes one")
    else:
        rows = [[v.name, v.version, v.approval, "champion" if v.champion else "", v.score, v.run] for v in versions]
        say(table(["model", "version", "approval", "alias", "score", "run"], rows))
    return 0


def approve(arguments: argparse.Namespace) -> int:
    """Approve, wait for the alias to follow, and for the devices to switch."""
    return _decide(arguments, "Approved")


def reject(arguments: argparse.Namespace) -> int:
    """Reject."""
    return _decide(arguments, "Rejected")


def rollback(arguments: argparse.Namespace) -> int:
    """Back to an approved version: the alias moves and the devices follow; nothing is registered anew."""
    from registry.approval import find
    from registry.mlflow_registry import MlflowRegistry
    from registry.promotion import Devices, earlier, make_champion
    from registry.sagemaker_registry import SageMakerRegistry

    use_store()
    mlflow = MlflowRegistry()
    versions = mlflow.versions()
    champions = [version for version in versions if version.champion]
    if not arguments.version and len(champions) > 1:
        raise UsageError(f"Several models have a champion ({', '.join(v.name for v in champions)}): name the version to go back to.")
    wanted = find(versions, arguments.version) if arguments.version else None
    target = earlier(versions, champions[0] if champions else None, wanted)
    with clouds.use() as cloud:
        from fl_runtime.aws import client

        devices = Devices(client("dynamodb"), cloud.deployment.devices_table, client("iot-data"))
        make_champion(target, mlflow, SageMakerRegistry(client("sagemaker")), devices, client("s3"))
        states = _await_switch(cloud, target)
    return _show_decided(arguments.json, find(mlflow.versions(target.name), target.version), states)


def _decide(arguments: argparse.Namespace, approval: Any) -> int:
    from registry.approval import decide, find
    from registry.mlflow_registry import MlflowRegistry
    from registry.sagemaker_registry import SageMakerRegistry

    if not arguments.reason.strip():
        raise UsageError("--reason is empty: say why, for those who come after you.")
    use_store()
    version = find(MlflowRegistry().versions(), arguments.version)
    with clouds.use() as cloud:
        from fl_runtime.aws import client

        decided = decide(MlflowRegistry(), SageMakerRegistry(client("sagemaker")), version, approval, arguments.reason)
        states = _await_switch(cloud, decided) if approval == "Approved" else {}
    return _show_decided(arguments.json, decided, states)


def _show_decided(as_json: bool, decided: Version, states: dict[str, str]) -> int:
    if as_json:
        show_json({**msgspec.to_builtins(decided), "devices": states})
    else:
        say(f"{decided.name}/{decided.version} is {decided.approval}" + (", alias champion" if decided.champion else ""))
        for device, state in states.items():
            say(f"  {device}: {state}")
    return 0


def _await_switch(cloud: clouds.Cloud, version: Any) -> dict[str, str]:
    """Bring the enrolled devices up, if they are not, and wait until each has said what it runs. On AWS they say so in their own time."""
    if not isinstance(cloud, LocalCloud):
        return {}
    from fl_runtime.aws import S3Objects, client
    from fl_runtime.run_spec import decode_spec, spec_key

    fleet = decode_spec(S3Objects(client("s3"), cloud.deployment.bucket).get(spec_key(version.run))).fleet
    count = enrolled(cloud, fleet)
    if not count:
        return {}
    began = time.time()
    with running_fleet(cloud, fleet, count, None, client("iot")):
        await_devices(cloud, fleet, count, client("dynamodb"), began)
        return _poll_shadows(cloud, fleet, f"{version.name}/{version.version}", client("iot-data"))


def _poll_shadows(cloud: LocalCloud, fleet: str, wanted: str, iot_data: Any) -> dict[str, str]:
    devices = sorted(path.parent.name for path in (cloud.home.devices / fleet).glob("*/device.json"))
    states = dict.fromkeys(devices, "no answer yet")
    deadline = time.monotonic() + DEVICE_SECONDS
    while time.monotonic() < deadline and not all(state.startswith(wanted) for state in states.values()):
        for device in devices:
            shadow = msgspec.json.decode(iot_data.get_thing_shadow(thingName=device)["payload"].read())
            reported = shadow["state"].get("reported", {}).get("champion", {})
            if reported.get("version") == wanted:
                states[device] = f"{wanted} {reported['state']}"
        time.sleep(0.3)
    return states


def use_store() -> None:
    """MLflow's store of the local home, unless the environment names another or the cloud is AWS."""
    if os.environ.get(clouds.VARIABLE) == "aws":
        os.environ.setdefault("MLFLOW_TRACKING_URI", clouds.AwsCloud.of_environment().deployment.mlflow_arn)
        return
    home = Home.default()
    os.environ.setdefault("MLFLOW_TRACKING_URI", home.mlflow_uri)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if os.environ["MLFLOW_TRACKING_URI"] == home.mlflow_uri and not (home.root / "mlflow.db").is_file():
        raise UsageError(f"There are no models in {home.root}: `mledgeops run APP` makes one.")
