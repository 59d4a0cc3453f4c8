"""How commands speak: text for people on stdout, one JSON document with ``--json``, logs on stderr."""

from __future__ import annotations

import datetime
import json
import re
import sys
from collections.abc import Sequence
from typing import Any

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def show_json(document: Any) -> None:
    """The one JSON document of a command."""
    json.dump(document, sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")


def say(text: str = "") -> None:
    """A line for a person."""
    print(readable(text), flush=True)


def readable(text: str) -> str:
    """Devices and apps have named things in it: no control character of theirs reaches the
    terminal.
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows under headings, numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [
        max([len(name), *(len(row[index]) for row in cells)]) for index, name in enumerate(columns)
    ]
    right = [
        all(isinstance(row[index], int | float) for row in rows) and bool(rows)
        for index in range(len(columns))
    ]

    def line(values: Sequence[str]) -> str:
        return "  ".join(
            v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True)
        ).rstrip()

    return "\n".join(
        [line(columns), line(["-" * width for width in widths]), *(line(row) for row in cells)]
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return "" if value is None else str(value)


def moment(seconds: float) -> str:
    """A time as people and programs read it, in UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
