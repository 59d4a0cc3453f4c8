"""Text and JSON from the other side: whatever comes, ProtocolError is all that is raised."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from edge import typed
from edge.protocol.errors import ProtocolError

REASON_CHARACTERS = 1000
"""Longest text of a device that is kept as a reason."""

_T = TypeVar("_T")


def printable(text: str, limit: int = REASON_CHARACTERS) -> str:
    """Return ``text`` on one line, without what a terminal or a log could obey.

    Control characters, bidirectional ones (https://trojansource.codes) and lone surrogates become
    U+FFFD. Longer text is cut to ``limit`` characters.
    """
    cut = text[:limit]
    if cut.isprintable():
        return cut
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in cut
    )


def parse_json(data: bytes | str, kind: type[_T] | Any, what: str) -> _T:
    """Parse JSON as ``kind``. Raises ProtocolError ``malformed``, whatever ``data`` holds."""
    try:
        parsed: _T = typed.from_json(data, type=kind)
    # ValueError: text with a lone surrogate, bytes that are not UTF-8, and a digit string too long.
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise _malformed(what, error) from error
    return parsed


def convert(value: Any, kind: type[_T], what: str) -> _T:
    """Check parsed JSON against ``kind``. Raises ProtocolError ``malformed``."""
    try:
        return typed.convert(value, kind)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise _malformed(what, error) from error


def _malformed(what: str, error: Exception) -> ProtocolError:
    return ProtocolError("malformed", f"{what} is malformed: {printable(str(error), 300)}")
