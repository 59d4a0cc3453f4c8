"""``mledgeops devices expect | core | rotate | retire``: the life of device certificates."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import msgspec

from fl_runtime.run.aws import client
from pipelines.aws.policies.devices import core_policy
from pipelines.cli.commands.operate import blocking
from pipelines.cli.options import declare
from pipelines.cli.output import answer
from pipelines.desk import clouds
from pipelines.devices.certificates import expect, heard_with, retire, rotate
from pipelines.devices.cores import expect_core
from pipelines.devices.tokens import TOKEN_DAYS
from pipelines.errors import UsageError


def add_parser(commands: Any) -> None:
    """Declare the commands."""
    devices = commands.add_parser("devices").add_subparsers(
        dest="action", required=True, metavar="expect|core|rotate|retire|block|unblock"
    )
    expecting = devices.add_parser(
        "expect", help="make the claim files with which new devices enrol themselves"
    )
    expecting.add_argument("names", nargs="+", help="device names (the things' names)")
    expecting.add_argument("--fleet", required=True, help="their fleet")
    expecting.add_argument(
        "--out",
        type=Path,
        default=Path("claims"),
        help="folder for the claim files (default: claims)",
    )
    expecting.add_argument(
        "--device-home", default="/var/lib/mledgeops", help="the agent's folder on the devices"
    )
    expecting.add_argument(
        "--valid-days",
        type=int,
        default=TOKEN_DAYS,
        help=f"how long the devices have to enrol (default: {TOKEN_DAYS})",
    )
    core = devices.add_parser("core", help="make the thing and the policy of a new Greengrass core")
    core.add_argument("name", help="the core's name (its thing's name)")
    core.add_argument("--fleet", required=True, help="its fleet")
    declare(core, expect_greengrass_core)
    rotating = devices.add_parser("rotate", help="have devices renew their certificates")
    rotating.add_argument("names", nargs="*", help="which (default: all that were heard of)")
    retiring = devices.add_parser(
        "retire", help="deactivate certificates that devices no longer use"
    )
    blocking.add_parsers(devices)
    declare(expecting, expect_devices)
    declare(rotating, rotate_devices)
    declare(retiring, retire_certificates)


def expect_devices(arguments: argparse.Namespace) -> int:
    """Write one claim file for each device."""
    if arguments.valid_days < 1:
        raise UsageError("--valid-days must be 1 or more.")
    with clouds.use(arguments.cloud) as cloud:
        files = expect(
            cloud.deployment,
            client("iot"),
            cloud.endpoint(client("kms")),
            arguments.fleet,
            arguments.names,
            arguments.out,
            arguments.device_home,
            expires_at=time.time() + arguments.valid_days * 86_400,
        )
    answer(
        arguments.json,
        {"claims": [str(file) for file in files]},
        f"{len(files)} claim files in {arguments.out}; on each device: mledgeops-enrol NAME.json",
    )
    return 0


def expect_greengrass_core(arguments: argparse.Namespace) -> int:
    """Make what a Greengrass core is installed with."""
    with clouds.use(arguments.cloud) as cloud:
        d, fleet, name = cloud.deployment, arguments.fleet, arguments.name
        policy = expect_core(d, client("iot"), fleet, name, core_policy(d, fleet, name))
    text = (
        f"install the nucleus with --thing-name {arguments.name} --thing-policy-name {policy} "
        f"and the role alias {cloud.deployment.prefix}-device"
    )
    answer(arguments.json, {"device": arguments.name, "policy": policy}, text)
    return 0


def rotate_devices(arguments: argparse.Namespace) -> int:
    """Ask devices by their shadows to renew their certificates."""
    with clouds.use(arguments.cloud) as cloud:
        heard = sorted(dict(heard_with(client("dynamodb"), cloud.deployment)))
        unknown = sorted(set(arguments.names) - set(heard))
        if unknown:
            raise UsageError(
                f"No device {unknown[0]} has been heard of: `mledgeops fleet` shows them."
            )
        names = arguments.names or heard
        rotate(client("iot-data"), names, time.time())
    text = f"{len(names)} devices were asked to renew; later: mledgeops devices retire"
    answer(arguments.json, {"asked": names}, text)
    return 0


def retire_certificates(arguments: argparse.Namespace) -> int:
    """Deactivate the certificates that are older than the one a device was last heard with."""
    with clouds.use(arguments.cloud) as cloud:
        retired = retire(client("iot"), heard_with(client("dynamodb"), cloud.deployment))
    text = "\n".join(f"{item.device}  {item.certificate}" for item in retired)
    answer(
        arguments.json,
        {"retired": [msgspec.to_builtins(item) for item in retired]},
        text or "no device has more than one certificate",
    )
    return 0
