"""``mledgeops devices expect | rotate | retire``: the life of device certificates."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import msgspec

from edge.protocol.errors import ProtocolError
from pipelines.cli.output import say, show_json
from pipelines.desk import clouds
from pipelines.errors import UsageError


def add_parser(commands: Any) -> None:
    """Declare the commands."""
    devices = commands.add_parser(
        "devices", help="enrol devices, rotate their certificates"
    ).add_subparsers(dest="action", required=True, metavar="expect|rotate|retire")
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
    rotating = devices.add_parser("rotate", help="have devices renew their certificates")
    rotating.add_argument("names", nargs="*", help="which (default: all that were heard of)")
    retiring = devices.add_parser(
        "retire", help="deactivate certificates that devices no longer use"
    )
    for parser, function in (
        (expecting, expect_devices),
        (rotating, rotate_devices),
        (retiring, retire_certificates),
    ):
        clouds.add_option(parser)
        parser.add_argument("--json", action="store_true", help="print one JSON document")
        parser.set_defaults(function=function)


def expect_devices(arguments: argparse.Namespace) -> int:
    """Write one claim file a device."""
    with clouds.use(arguments.cloud) as cloud:
        from fl_runtime.run.aws import client
        from pipelines.devices.certificates import EnrolledAlready, expect

        try:
            files = expect(
                cloud.deployment,
                client("iot"),
                cloud.endpoint(),
                arguments.fleet,
                arguments.names,
                arguments.out,
                arguments.device_home,
            )
        except EnrolledAlready as error:
            raise UsageError(str(error)) from error
        except ProtocolError as error:
            raise UsageError(f"{str(error)[:1].upper()}{str(error)[1:]}.") from error
    if arguments.json:
        show_json({"claims": [str(file) for file in files]})
    else:
        say(
            f"{len(files)} claim files in {arguments.out}; on each device: mledgeops-enrol NAME.json"
        )
    return 0


def rotate_devices(arguments: argparse.Namespace) -> int:
    """Ask by shadow."""
    with clouds.use(arguments.cloud) as cloud:
        from fl_runtime.run.aws import client
        from pipelines.devices.certificates import heard_with, rotate

        heard = sorted(dict(heard_with(client("dynamodb"), cloud.deployment)))
        unknown = sorted(set(arguments.names) - set(heard))
        if unknown:
            raise UsageError(
                f"No device {unknown[0]} has been heard of: `mledgeops fleet` shows them."
            )
        names = arguments.names or heard
        rotate(client("iot-data"), names, time.time())
    show_json({"asked": names}) if arguments.json else say(
        f"{len(names)} devices were asked to renew; later: mledgeops devices retire"
    )
    return 0


def retire_certificates(arguments: argparse.Namespace) -> int:
    """Deactivate old ones."""
    with clouds.use(arguments.cloud) as cloud:
        from fl_runtime.run.aws import client
        from pipelines.devices.certificates import heard_with, retire

        gone = retire(client("iot"), heard_with(client("dynamodb"), cloud.deployment))
    if arguments.json:
        show_json({"retired": [msgspec.to_builtins(item) for item in gone]})
    else:
        say(
            "\n".join(f"{item.device}  {item.certificate}" for item in gone)
            or "no device has more than one certificate"
        )
    return 0
