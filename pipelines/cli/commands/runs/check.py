"""``mledgeops check APP``: what an app uses of Flower, and how it will run, before any run."""

from __future__ import annotations

import argparse
from pathlib import Path
from textwrap import wrap
from typing import Any

from edge.training.app_bundle import load_app
from pipelines.cli.commands.runs.app_check import checking, finish
from pipelines.cli.options import declare
from pipelines.cli.output import answer
from pipelines.run.option_table import RunOptions
from pipelines.run.plan import plan

WIDTH = 100
INDENTED: dict[str, Any] = {"initial_indent": "    ", "subsequent_indent": "    "}
ENDS = {
    "model": "a model, registered for approval",
    "analysis": "an analysis: it registers no model",
    "either": "a model if it leaves arrays, else an analysis",
}


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("check")
    parser.add_argument("app", type=Path, help="the Flower app's folder")
    declare(parser, check, cloud=False)


def check(arguments: argparse.Namespace) -> int:
    """Exit 0 when the app can run, 2 when it cannot."""
    with checking(plan(load_app(arguments.app), RunOptions())) as process:
        found = finish(process)
    answer(arguments.json, found, check_text(found))
    return 0


def check_text(found: dict[str, Any]) -> str:
    """The description of an app (AppDescription, as JSON) as text."""
    rounds = found["rounds_key"]
    lines = [
        f"{found['app']} {found['version']}: {found['devices']} devices",
        f"ends with {ENDS[found['ends_with']]}",
        f"--rounds sets {rounds}" if rounds else "the app alone decides how many rounds there are",
        "",
    ]
    for use in found["features"]:
        where = f" ({use['where']})" if use["where"] else ""
        lines += [use["uses"] + where, *wrap(use["runs"], WIDTH, **INDENTED)]
    lines += [line for notice in found.get("notices", []) for line in ["", *wrap(notice, WIDTH)]]
    return "\n".join(lines)
