"""Options that many commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import get_args

from pipelines.desk import clouds

VERSION_HELP = "a version number, NAME/NUMBER, or the model package's ARN"

Command = Callable[[argparse.Namespace], int]
"""A command: takes its arguments, returns the exit code."""


def declare(parser: argparse.ArgumentParser, command: Command, *, cloud: bool = True) -> None:
    """Set the command that a parser runs, and give it ``--json`` and ``--cloud``.

    ``cloud=False``: the command does not work on a cloud of the user's choice.
    """
    if cloud:
        add_cloud(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(function=command)


def add_cloud(parser: argparse.ArgumentParser) -> None:
    """The option ``--cloud``."""
    parser.add_argument(
        "--cloud",
        choices=get_args(clouds.Choice),
        default="",
        help=f"where (default: {clouds.VARIABLE}, else local)",
    )
