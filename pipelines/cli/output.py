"""How commands answer: text on stdout, one JSON document with ``--json``, logs on stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from pipelines.desk.moments import duration as duration
from pipelines.desk.moments import moment as moment

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"
    "\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""Control characters, those that change a text's direction or are not seen
(https://trojansource.codes), and lone surrogates.
"""


def answer(as_json: bool, document: Any, text: str) -> None:
    """Write a command's answer, as JSON or as text."""
    if as_json:
        show_json(document)
    else:
        say(text)


def show_json(document: Any) -> None:
    """Write a command's one JSON document."""
    json.dump(document, sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")


def say(text: str = "") -> None:
    """Write text for a person."""
    print(readable(text), flush=True)


def warn(text: str) -> None:
    """Tell the user on standard error what needs attention, with ``--json`` too."""
    sys.stderr.write(f"mledgeops: {readable(text)}\n")


def readable(text: str) -> str:
    """Text without characters that a terminal obeys: devices and apps name things in it."""
    return _OBEYED.sub("\N{REPLACEMENT CHARACTER}", text)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows under headings; columns of numbers are aligned to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [
        max([len(name), *(len(row[index]) for row in cells)]) for index, name in enumerate(columns)
    ]
    right = [_is_numeric([row[index] for row in rows]) for index in range(len(columns))]

    def line(values: Sequence[str]) -> str:
        padded = [
            value.rjust(width) if numeric else value.ljust(width)
            for value, width, numeric in zip(values, widths, right, strict=True)
        ]
        return "  ".join(padded).rstrip()

    ruler = ["-" * width for width in widths]
    return "\n".join([line(columns), line(ruler), *map(line, cells)])


def _is_numeric(values: Sequence[Any]) -> bool:
    """Whether a column has numbers only, apart from cells without a value."""
    given = [value for value in values if value is not None]
    return bool(given) and all(isinstance(value, int | float) for value in given)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return "" if value is None else str(value)
