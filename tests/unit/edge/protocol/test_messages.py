"""Messages: strict, versioned and bounded."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hostile import good_command, good_heartbeat, good_reply

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import (
    CLAIMED_LIMIT,
    COMMAND_LIMIT,
    Command,
    Envelope,
    Heartbeat,
    ObjectRef,
    Reply,
    decode,
    decode_heartbeat,
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
        "device": "d0",
        "issued": 1,
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
        {"v": 1},
        {"device": "../x"},
        {"issued": -1},
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


@pytest.mark.parametrize(
    "changes",
    [
        {"message_id": "m" * 5000},
        {"message_id": "m\u202e"},
        {"message_id": ""},
        {"reply_key": "k" * 20_000},
        {"phase": "p" * 5000},
        {"phase": "../x"},
        {"kind": "train\n"},
        {"flower_run_id": 2**70},
        {"flower_run_id": 2**63},
        {"node_id": -(2**63) - 1},
        {"server_round": 10**30},
        {"seconds": 1e9},
        {"upload_url": "u" * 10_000},
        {"content_ref": {"digest": "a" * 64, "size": 2**30}},
    ],
)
def test_every_field_of_a_command_has_a_bound(changes: dict) -> None:
    fields = {**json.loads(msgspec.json.encode(good_command())), "content": ""}
    assert decode_order(json.dumps(fields).encode())
    with pytest.raises(ProtocolError, match="malformed"):
        decode(json.dumps({**fields, **changes}), Command, CLAIMED_LIMIT)


def test_a_claim_is_never_for_more_than_a_command_can_be() -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        decode_order(
            b'{"type": "claim", "device": "d0", "issued": 1, "message_id": "m",'
            b'"seconds": 60, "command":'
            b'{"digest": "%s", "size": 314572800, "url": "http://x"}}' % (b"a" * 64)
        )
    with pytest.raises(ProtocolError, match="malformed"):
        decode_order(
            b'{"type": "claim", "device": "d0", "issued": 1, "message_id": "m",'
            b'"seconds": 1e9, "command":'
            b'{"digest": "%s", "size": 3000, "url": "http://x"}}' % (b"a" * 64)
        )


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (Reply, {"message_id": "m" * 5000}),
        (Reply, {"phase": "p" * 5000}),
        (Reply, {"timing": {"fetch": 1e9}}),
        (Reply, {"bytes_down": 2**70}),
        (Heartbeat, {"model": "m\u202e/1"}),
        (Heartbeat, {"boot": "\u202e"}),
        (Heartbeat, {"serving": {"predictions": 2**60}}),
    ],
)
def test_every_field_that_a_device_sends_has_a_bound(kind: type, changes: dict) -> None:
    good = good_reply() if kind is Reply else good_heartbeat()
    fields = json.loads(msgspec.json.encode(good))
    assert decode(json.dumps(fields), kind) == good
    with pytest.raises(ProtocolError, match="malformed"):
        decode(json.dumps({**fields, **changes}), kind)


def test_text_with_a_lone_surrogate_is_refused_and_not_shown() -> None:
    for body in ('{"v": "\ud800"}', '{"\ud800": 1}', "\ud800"):
        with pytest.raises(ProtocolError) as caught:
            decode_heartbeat(body)
        assert str(caught.value).isprintable()
