"""``mledgeops run APP``: federates a Flower app."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge.training.app_bundle import load_app
from pipelines.cli.commands.runs.flags import add_flags, given_flags, options_of
from pipelines.cli.commands.runs.following import run_detached, run_locally, run_on_aws
from pipelines.cli.options import declare
from pipelines.desk import clouds, wiring
from pipelines.desk.lost_runs import settle
from pipelines.errors import UsageError
from pipelines.run.plan import RunPlan, plan
from pipelines.run.resume import resumption


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("run")
    parser.add_argument("app", type=Path, nargs="?", help="the Flower app's folder")
    parser.add_argument(
        "--resume",
        default="",
        metavar="RUN",
        help="instead of an app: continue this run where it ended, up to --rounds in all",
    )
    parser.add_argument(
        "--detach",
        action="store_true",
        help="return once the run has begun; `mledgeops attach RUN` follows it",
    )
    parser.add_argument(
        "--queue",
        action="store_true",
        help="on the local cloud: wait while another run is under way on the fleet "
        "(default: refuse)",
    )
    add_flags(parser)
    declare(parser, run)


def run(arguments: argparse.Namespace) -> int:
    """Exit 0 with a registered model, 1 when the run makes none, 2 for bad usage."""
    on_aws = clouds.chosen(arguments.cloud) == "aws"
    if arguments.resume:
        _check_resume(arguments)
        with clouds.use(arguments.cloud) as cloud:
            clients = wiring.run_clients(cloud.deployment)
            settle(clients, arguments.resume)
            with resumption(clients, arguments.resume, arguments.rounds or 0) as wanted:
                return _run(wanted, arguments, on_aws=on_aws)
    if arguments.app is None:
        raise UsageError("Give the folder of a Flower app, or --resume RUN.")
    options = options_of(arguments, on_aws=on_aws)
    return _run(plan(load_app(arguments.app), options), arguments, on_aws=on_aws)


def _run(wanted: RunPlan, arguments: argparse.Namespace, *, on_aws: bool) -> int:
    if arguments.detach:
        return run_detached(wanted, arguments.cloud, queue=arguments.queue, as_json=arguments.json)
    if not on_aws:
        return run_locally(wanted, queue=arguments.queue, as_json=arguments.json)
    if arguments.queue:
        raise UsageError("--queue is for the local cloud: leave it out.")
    return run_on_aws(wanted, as_json=arguments.json)


def _check_resume(arguments: argparse.Namespace) -> None:
    """Check that nothing but the number of rounds is asked of a continued run.

    Raises:
        UsageError: Another option was given.

    """
    unchanged = "--resume continues the run as it was"
    if arguments.app is not None:
        raise UsageError(f"{unchanged}: leave the app out.")
    for name, entry in given_flags(arguments).items():
        if name != "rounds":
            raise UsageError(f"{unchanged}: leave {entry.flag} out.")
        entry.check(arguments.rounds)
