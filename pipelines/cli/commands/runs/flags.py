"""The option table as flags of a command."""

from __future__ import annotations

import argparse
from collections.abc import Container
from typing import Any

from pipelines.run.option import Option
from pipelines.run.option_table import TABLE, RunOptions, defaults_on_aws
from pipelines.run.plan import parse_settings


def add_flags(parser: argparse.ArgumentParser, only: Container[str] | None = None) -> None:
    """Declare the options that have a flag. ``only``: the names of those that the command takes."""
    for entry in TABLE:
        if entry.flag and (only is None or entry.name in only):
            _add(parser, entry)


def _add(parser: argparse.ArgumentParser, entry: Option) -> None:
    # Every default is None, so that a command sees what was given.
    if entry.kind is dict:
        parser.add_argument(
            entry.flag, dest=entry.name, action="append", metavar=entry.metavar, help=entry.usage()
        )
    else:
        parser.add_argument(entry.flag, dest=entry.name, type=entry.kind, help=entry.usage())


def given_flags(arguments: argparse.Namespace) -> dict[str, Option]:
    """The options whose flags were given, by name."""
    return {
        entry.name: entry for entry in TABLE if getattr(arguments, entry.name, None) is not None
    }


def options_of(arguments: argparse.Namespace, *, on_aws: bool) -> RunOptions:
    """The options that the flags ask for; raises UsageError for a value out of bounds.

    ``on_aws``: the defaults are those of AWS and of schedules.
    """
    values: dict[str, Any] = dict(defaults_on_aws()) if on_aws else {}
    for name, entry in given_flags(arguments).items():
        value = getattr(arguments, name)
        if entry.kind is dict:
            value = parse_settings(value, entry.flag)
        else:
            entry.check(value)
        values[name] = value
    return RunOptions(**values)
