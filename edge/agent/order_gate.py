"""The gate before the command loop: lets in orders that are signed, granted, ours and new."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from edge.agent.freshness import Freshness
from edge.identity.trust import Trust
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import (
    CLAIMED_LIMIT,
    Claim,
    Command,
    MessageId,
    Phase,
    Reply,
    ReplyKey,
    decode,
    seal,
)
from edge.protocol.names import Name
from edge.protocol.orders import (
    Grant,
    check_granted,
    check_order,
    decode_signed,
    grant_text,
    parse_grant,
    read_unverified,
)
from edge.protocol.text import parse_json

_ANSWERED = ("unsigned", "outdated")
"""Refusals that the cloud is told: a device without keys, or of another release."""


@dataclass(frozen=True)
class GrantedCommand:
    """A command whose signatures hold, and the grant that it was signed under."""

    command: Command
    grant: Grant


@dataclass(frozen=True)
class GrantedClaim:
    """A claim, likewise."""

    claim: Claim
    grant: Grant


class _Refusable(msgspec.Struct, frozen=True):
    """What a refusal needs of a command of any version."""

    run: Name
    phase: Phase
    message_id: MessageId
    reply_key: ReplyKey


class OrderGate:
    """Checks what comes on a device's command topic.

    Args:
        fleet: The device's fleet.
        device: Its name.
        trust: The keys whose grants it believes.
        freshness: The orders that it has begun.

    """

    def __init__(self, fleet: str, device: str, trust: Trust, freshness: Freshness) -> None:
        self._fleet = fleet
        self._device = device
        self._trust = trust
        self._freshness = freshness

    def open(self, payload: bytes) -> GrantedCommand | GrantedClaim:
        """Verify a message, without a look at whether it is new. Raises ProtocolError."""
        signed = decode_signed(payload)
        self._trust.check("commands", grant_text(signed.grant), signed.grant_signature)
        grant = parse_grant(signed)
        order = check_order(signed, grant)
        if (grant.fleet, order.device) != (self._fleet, self._device):
            raise ProtocolError("foreign", "The order is for another device.")
        if isinstance(order, Claim):
            return GrantedClaim(order, grant)
        return GrantedCommand(order, grant)

    def admit(self, order: Command | Claim) -> None:
        """Take note of an order before it is carried out. Raises ProtocolError unless it is new."""
        self._freshness.use(order)

    def claimed(self, granted: GrantedClaim, data: bytes) -> GrantedCommand:
        """The command behind an admitted claim, whose digest the claim has signed.

        Raises:
            ProtocolError: It is none, or not the one that the claim speaks of.

        """
        command, claim = decode(data, Command, CLAIMED_LIMIT), granted.claim
        told = (claim.device, claim.message_id, claim.issued)
        if (command.device, command.message_id, command.issued) != told:
            raise ProtocolError("foreign", "The command is not the one that its claim speaks of.")
        check_granted(command, granted.grant)
        return GrantedCommand(command, granted.grant)


def refusal(payload: bytes, error: ProtocolError) -> bytes | None:
    """The reply that tells the cloud why a command was refused; None where nobody is to know."""
    if error.code not in _ANSWERED:
        return None
    try:
        asked = _refusable(payload)
        reply = Reply(
            run=asked.run,
            phase=asked.phase,
            message_id=asked.message_id,
            status="error",
            code=error.code,
            reason=str(error),
        )
        return seal(reply, asked.reply_key)
    except ProtocolError:
        return None


def _refusable(payload: bytes) -> _Refusable | Command:
    try:
        order = read_unverified(payload)
    except ProtocolError:
        return parse_json(payload, _Refusable, "The message")
    if isinstance(order, Claim):
        raise ProtocolError("claim", "A claim names no reply key.")
    return order
