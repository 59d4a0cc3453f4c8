"""A message of the command topic, signed whatever it says: what a stolen key could send, too."""

from __future__ import annotations

from fakes.keys import COMMANDS, MODELS, PRIVATE, PUBLIC

from edge.agent.freshness import Freshness
from edge.agent.order_gate import OrderGate, refusal
from edge.identity.trust import Trust, TrustedKeys
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import Reply, unseal
from edge.protocol.orders import grant_text
from fl_runtime.run.order_keys import OrderKey, sign_encoded
from fuzz.device_path import SEPARATOR

TRUST = Trust(TrustedKeys(commands=[COMMANDS.public], models=[MODELS.public]))


def gate(data: bytes) -> None:
    """The message as it is, and an order and its grant with their signatures made right.

    ``@key`` in the grant stands for the key that the orders are signed with.
    """
    grant, _, order = data.partition(SEPARATOR)
    grant = grant.replace(b"@key", PUBLIC.encode())
    signed = sign_encoded(order, OrderKey(PRIVATE, grant, COMMANDS.sign(grant_text(grant))))
    for payload in (data, signed):
        try:
            OrderGate("f", "d0", TRUST, _NEVER).open(payload)
        except ProtocolError as error:
            assert str(error).isprintable()
            told = refusal(payload, error)
            if told is not None:
                unseal(told, Reply)


class _Never(Freshness):
    """Of a gate that is only opened."""

    def __init__(self) -> None:
        pass


_NEVER = _Never()
