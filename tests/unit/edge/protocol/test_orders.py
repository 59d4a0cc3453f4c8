"""An order is what its cohort signed, under a grant that the server signed."""

from __future__ import annotations

import msgspec
import pytest
from fakes.devices import a_command
from fakes.keys import PRIVATE, a_grant, sealed

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import ObjectRef
from edge.protocol.orders import (
    check_content,
    check_order,
    content_digest,
    decode_signed,
    grant_text,
    order_text,
    parse_grant,
    read_unverified,
)


def test_grant_and_order_travel_as_the_bytes_that_were_signed() -> None:
    command = a_command()
    signed = decode_signed(sealed(command))
    assert bytes(signed.order) == msgspec.json.encode(command)
    assert parse_grant(signed) == a_grant(command)
    assert check_order(signed, a_grant(command)) == command == read_unverified(sealed(command))


def test_a_signature_is_good_for_one_kind_of_text() -> None:
    assert grant_text(b"{}") != order_text(b"{}")


@pytest.mark.parametrize(
    "change",
    [
        {"device": "d1"},
        {"message_id": "m2"},
        {"upload_url": "elsewhere"},
        {"issued": 1},
        {"seconds": 1.0},
        {"reply_key": "k2"},
        {"node_id": 9},
        {"run_config": '{"lr": 9}'},
        {"arrays": ObjectRef("c" * 64, 1, "x")},
    ],
)
def test_every_field_of_an_order_is_signed(change: dict) -> None:
    command = a_command()
    signed = decode_signed(sealed(command))
    encoded = msgspec.json.encode(msgspec.structs.replace(command, **change))
    changed = msgspec.structs.replace(signed, order=msgspec.Raw(encoded))
    with pytest.raises(ProtocolError) as refused:
        check_order(changed, a_grant(command))
    assert refused.value.code == "unsigned"


@pytest.mark.parametrize("key", ["", "AAAA", "not base64!", "A" * 44])
def test_a_grant_whose_key_is_none_signs_nothing(key: str) -> None:
    with pytest.raises(ProtocolError, match="has not signed"):
        check_order(decode_signed(sealed(a_command())), a_grant(a_command(), key=key))


def test_content_and_settings_are_the_granted_ones_together() -> None:
    grant = a_grant(a_command(), content=content_digest("a", "b"))
    check_content(grant, "a", "b")
    for content, settings in (("b", "a"), ("ab", ""), ("a", "c")):
        with pytest.raises(ProtocolError, match="content is not"):
            check_content(grant, content, settings)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "malformed"),
        (b"{}", "malformed"),
        (b'{"type": "command", "v": 1, "run": "r"}', "outdated"),
        (b'{"type": "command", "v": 2}', "malformed"),
        (sealed(a_command()).replace(b'{"v":2', b'{"v":3', 1), "malformed"),
        (sealed(a_command())[:-2], "malformed"),
        (b" " * 9000, "too-long"),
    ],
)
def test_what_is_no_signed_order_is_refused(payload: bytes, code: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        decode_signed(payload)
    assert refused.value.code == code


def test_the_private_half_is_shown_nowhere() -> None:
    from fl_runtime.run.messages import OrderKey

    assert PRIVATE.hex() not in repr(OrderKey(PRIVATE, b"{}", "s")).encode().hex()
    assert repr(PRIVATE) not in repr(OrderKey(PRIVATE, b"{}", "s"))
