"""A phase's key signs orders that its grant's public half verifies."""

from __future__ import annotations

from fakes.devices import a_command
from fakes.keys import COMMANDS, a_grant

from edge.protocol.orders import check_order, decode_signed
from fl_runtime.run.order_keys import new_key_pair, order_key, sign_order


def test_an_order_is_verified_by_the_key_in_its_grant() -> None:
    private, public = new_key_pair()
    command = a_command()
    grant = a_grant(command, key=public)
    signed = decode_signed(sign_order(command, order_key(grant, private, COMMANDS.sign)))
    assert check_order(signed, grant) == command


def test_no_two_phases_share_a_key() -> None:
    assert new_key_pair() != new_key_pair()
