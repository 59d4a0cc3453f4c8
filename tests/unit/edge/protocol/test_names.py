"""Names and topics cannot escape from where they are used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.protocol.errors import ProtocolError
from edge.protocol.names import check_name, topic

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)


@given(NAMES, NAMES, st.sampled_from(["heartbeat", "command", "reply"]))
def test_topics_name_their_sender(fleet: str, device: str, channel: str) -> None:
    text = topic(fleet, device, channel)
    assert text.split("/") == ["fl", fleet, device, channel]
    assert text.count("/") <= 7


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a+b",
        "#",
        "a b",
        "-a",
        "a" * 64,
        "a\n",
        "é",
        "$aws",
        "../../etc/passwd",
    ],
)
def test_names_that_would_escape_are_refused(name: str) -> None:
    with pytest.raises(ProtocolError):
        check_name("device", name)
