"""A manifest is parsed from the very text that was signed."""

from __future__ import annotations

import msgspec
import pytest
from fakes.keys import a_manifest

from edge.protocol.errors import ProtocolError
from edge.protocol.signed import manifest_text, parse_manifest


def test_a_manifest_is_parsed_from_its_signed_text() -> None:
    assert parse_manifest(manifest_text(a_manifest()).decode()) == a_manifest()


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"more": 1},
        {"fleet": "../x"},
        {"digest": "zz"},
        {"model_version": "wind"},
        {"model_version": "wind/1\n"},
        {"sequence": 0},
        {"tolerance": -0.1},
        {"goal": "improve"},
    ],
)
def test_a_malformed_manifest_is_refused(change: dict) -> None:
    text = msgspec.json.encode({**msgspec.to_builtins(a_manifest()), **change}).decode()
    with pytest.raises(ProtocolError) as refused:
        parse_manifest(text)
    assert refused.value.code == "malformed"


def test_manifests_that_say_no_times_were_signed_at_no_known_time_and_hold_for_ever() -> None:
    fields = msgspec.json.decode(manifest_text(a_manifest()))
    for name in ("issued", "expires"):
        fields.pop(name, None)
    found = parse_manifest(msgspec.json.encode(fields).decode())
    assert (found.issued, found.expires) == (0.0, 0.0)
