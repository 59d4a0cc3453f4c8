"""``mledgeops devices block | unblock``: shut a device out of its fleet, and let it in again."""

from __future__ import annotations

import argparse
import getpass
import time
from typing import Any

import msgspec

from fl_runtime.run.aws import client
from fl_runtime.run.blocking import BlockList
from pipelines.cli.options import declare
from pipelines.cli.output import answer
from pipelines.desk import clouds, wiring
from pipelines.devices import blocking
from pipelines.errors import UsageError


def add_parsers(devices: Any) -> None:
    """Declare the commands below ``devices``."""
    block = devices.add_parser(
        "block", help="shut a device out: it is not asked, and nothing of it counts"
    )
    unblock = devices.add_parser("unblock", help="let a blocked device in again")
    for parser, command in ((block, block_device), (unblock, unblock_device)):
        parser.add_argument("name", help="the device's name")
        parser.add_argument("--reason", required=True, help="why; kept in the audit trail")
        declare(parser, command)


def block_device(arguments: argparse.Namespace) -> int:
    """Effective at the next message, also of a run under way."""
    made = _decide(arguments, blocked=True)
    count = len(made["certificates"])
    text = f"{arguments.name} is blocked; {count} certificates are deactivated"
    answer(arguments.json, {"device": arguments.name, **made}, text)
    return 0


def unblock_device(arguments: argparse.Namespace) -> int:
    """Its certificates are active again, and runs ask it again."""
    _decide(arguments, blocked=False)
    answer(arguments.json, {"device": arguments.name}, f"{arguments.name} is no longer blocked")
    return 0


def _decide(arguments: argparse.Namespace, *, blocked: bool) -> dict[str, Any]:
    device, reason = arguments.name, arguments.reason
    if not reason.strip():
        raise UsageError("The reason is empty: say why, for those who come after you.")
    with clouds.use(arguments.cloud) as cloud:
        blocks = BlockList(client("dynamodb"), cloud.deployment.devices_table)
        who, now, iot = getpass.getuser(), time.time(), client("iot")
        if blocked:
            made = blocking.block(iot, blocks, device, reason=reason, by=who, at=now)
        else:
            made = blocking.unblock(iot, blocks, device)
        what = "block" if blocked else "unblock"
        wiring.registry().audit.append(
            at=now, who=who, what=what, subject=device, why=reason, certificates=made.certificates
        )
    return dict(msgspec.to_builtins(made))
