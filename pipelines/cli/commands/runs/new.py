"""``mledgeops new``: a Flower app to start from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipelines.cli.options import declare
from pipelines.cli.output import answer
from pipelines.starters import TEMPLATES, write_app


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("new")
    parser.add_argument("folder", type=Path, help="the app's folder, whose name is the app's")
    parser.add_argument(
        "--template", choices=TEMPLATES, default=TEMPLATES[0], help="(default: %(default)s)"
    )
    declare(parser, new_app, cloud=False)


def new_app(arguments: argparse.Namespace) -> int:
    """Write the app and say what can be done with it."""
    folder = arguments.folder
    files = write_app(folder, arguments.template)
    listed = "\n".join(f"  {path}" for path in files)
    text = (
        f"{listed}\n\nFederate it:        mledgeops run {folder} --devices 4\n"
        f"Test it:            python -m pytest {folder}\n"
        f"Your data, model:   {folder / folder.name.replace('-', '_') / 'task.py'}"
    )
    answer(arguments.json, {"app": str(folder), "files": [str(path) for path in files]}, text)
    return 0
