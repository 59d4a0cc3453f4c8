"""Messages: strict, versioned and bounded."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import (
    COMMAND_LIMIT,
    Command,
    Envelope,
    Heartbeat,
    ObjectRef,
    Reply,
    decode,
    decode_order,
    encode,
    seal,
)
from edge.protocol.records import (
    decode_records,
    decode_skeleton,
    digest,
)


@given(st.binary(max_size=400))
def test_noise_is_refused(noise: bytes) -> None:
    for parse in (
        decode_records,
        decode_skeleton,
        lambda b: decode(b, Reply),
        lambda b: decode(b, Heartbeat),
        decode_order,
    ):
        with pytest.raises(ProtocolError):
            parse(noise)


def command(**changes: object) -> Command:
    fields = {
        "run": "run-1",
        "phase": "00001-train-0001",
        "server_round": 1,
        "kind": "train",
        "message_id": "m",
        "reply_key": "k",
        "app": "a" * 64,
        "seconds": 60.0,
        "flower_run_id": 1,
        "node_id": 2,
        "upload_url": "http://127.0.0.1/x",
    }
    return Command(**{**fields, **changes})


def test_commands_survive_and_unknown_fields_do_not() -> None:
    assert decode_order(encode(command())) == command()
    for change in (
        {"v": 2},
        {"run": "../x"},
        {"app": "zz"},
        {"seconds": -1.0},
        {"seconds": "soon"},
        {"extra": 1},
    ):
        forged = {**msgspec.to_builtins(command()), **change}
        with pytest.raises(ProtocolError):
            decode_order(json.dumps(forged).encode())


def test_a_message_above_the_transports_limit_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="limit is 4096"):
        encode(command(content="x" * COMMAND_LIMIT))


def test_replies_and_heartbeats_travel_sealed() -> None:
    reply = Reply(
        run="run-1", phase="p", message_id="m", status="ok", update=ObjectRef(digest(b"x"), 1)
    )
    envelope = msgspec.json.decode(seal(reply, "key"), type=Envelope)
    assert (decode(envelope.body, Reply), envelope.key) == (reply, "key")
    beat = Heartbeat(state="idle", apps=["b" * 64])
    assert decode(msgspec.json.decode(seal(beat), type=Envelope).body, Heartbeat) == beat
