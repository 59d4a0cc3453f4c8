"""Text of a device is shown as text, and nothing that it sends raises anything but a refusal."""

from __future__ import annotations

import pytest

from edge.protocol.errors import ProtocolError
from edge.protocol.text import convert, parse_json, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("the disk is full (95 %)", "the disk is full (95 %)"),
        ("Größe überschritten 大", "Größe überschritten 大"),
        ("a\x1b[2Jb\nc", "a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}c"),
        ("ok\u202eko\u2066", "ok\N{REPLACEMENT CHARACTER}ko\N{REPLACEMENT CHARACTER}"),
        ("\ud800", "\N{REPLACEMENT CHARACTER}"),
        ("x" * 2000, "x" * 1000),
    ],
)
def test_what_a_terminal_would_obey_is_replaced(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b'"\xff"', '"\ud800"', b"[" * 99_999, b"1e999", b"NaN", b'{"a":' * 9999]
)
def test_what_is_no_json_is_refused(data: bytes | str) -> None:
    for kind in (object, str, int, dict[str, str]):
        with pytest.raises(ProtocolError, match="It is malformed"):
            parse_json(data, kind, "It")


def test_the_reason_does_not_repeat_what_a_terminal_would_obey() -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_json('{"a": "\u202e"}', dict[str, int], "It")
    assert str(caught.value).isprintable()
    with pytest.raises(ProtocolError):
        convert({"a": "b"}, dict[str, int], "It")
