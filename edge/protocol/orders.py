"""Signed orders: all that a device accepts on its command topic.

::

    {"v": 2, "grant": {...}, "grant_signature": "...", "order": {...}, "signature": "..."}

The server's KMS key signs one grant for each phase and cohort: what may be run, and the public
half of a key made for it. With the private half, whoever serves the cohort signs each order, a
command or a claim check. What is signed are the bytes that travel, so no JSON needs a canonical
form, and everything in an order is covered: device, message id, upload address, times.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import (
    COMMAND_LIMIT,
    ORDER_VERSION,
    Claim,
    Command,
    Kind,
    Moment,
    Phase,
    decode,
    decode_order,
)
from edge.protocol.names import DIGEST_PATTERN, Digest, Name
from edge.protocol.records import digest
from edge.protocol.text import parse_json

_GRANT_PREFIX = b"mledgeops-grant-2\n"
"""Says what a signature is for: none is good for a text of another kind."""
_ORDER_PREFIX = b"mledgeops-order-2\n"


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the devices of one cohort may be asked for in one phase, and by which key."""

    run: Name
    phase: Phase
    kind: Kind
    fleet: Name
    cohort: Name
    app: Digest
    arrays: Annotated[str, msgspec.Meta(pattern=rf"^({DIGEST_PATTERN})?\Z")]
    """Digest of the weights; empty without weights."""
    content: Digest
    """From :func:`content_digest`."""
    key: Annotated[str, msgspec.Meta(max_length=64)]
    """Ed25519 public key, 32 bytes in base64."""
    expires: Moment


class SignedOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A message of the command topic. Grant and order are kept as the bytes that were signed."""

    v: Literal[2] = ORDER_VERSION
    grant: msgspec.Raw
    grant_signature: Annotated[str, msgspec.Meta(max_length=200)]
    """ECDSA over P-256 with SHA-256, DER in base64."""
    order: msgspec.Raw
    signature: Annotated[str, msgspec.Meta(max_length=100)]
    """Ed25519, in base64."""


class _OlderCommand(msgspec.Struct, frozen=True):
    """A command of protocol 1, as clouds before 0.5 send it."""

    type: Literal["command"]
    v: Literal[1] = 1


def content_digest(skeleton: str, run_config: str) -> str:
    """Digest of a phase's record skeleton and of the run's settings, together."""
    return digest(f"{digest(skeleton.encode())} {digest(run_config.encode())}".encode())


def grant_text(grant: msgspec.Raw | bytes) -> bytes:
    """The bytes that the server's KMS key signs for an encoded grant."""
    return _GRANT_PREFIX + bytes(grant)


def order_text(order: msgspec.Raw | bytes) -> bytes:
    """The bytes that a grant's key signs for an encoded order."""
    return _ORDER_PREFIX + bytes(order)


def decode_signed(payload: bytes) -> SignedOrder:
    """Decode the outer message, whose signatures say nothing yet.

    Raises:
        ProtocolError: ``outdated`` for a command of an older cloud, else ``malformed`` or
            ``too-long``.

    """
    try:
        return decode(payload, SignedOrder)
    except ProtocolError:
        if len(payload) <= COMMAND_LIMIT * 2 and _is_older(payload):
            raise ProtocolError(
                "outdated",
                "This agent takes orders of protocol 2, and the cloud sends protocol 1: deploy a"
                " cloud of this agent's release.",
            ) from None
        raise


def read_unverified(payload: bytes) -> Command | Claim:
    """The order in a message of the command topic, without a look at its signatures.

    For what trusts its sender anyway, such as a stand-in for a device. Raises ProtocolError.
    """
    return decode_order(bytes(decode_signed(payload).order))


def check_order(signed: SignedOrder, grant: Grant) -> Command | Claim:
    """Return the order that a verified grant's key has signed.

    Raises:
        ProtocolError: ``unsigned`` when the key has not signed it; ``foreign`` when it asks for
            what the grant does not hold; ``outdated`` when the grant had expired.

    """
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(grant.key, validate=True))
        key.verify(base64.b64decode(signed.signature, validate=True), order_text(signed.order))
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise ProtocolError("unsigned", "The grant's key has not signed this order.") from error
    order = decode_order(bytes(signed.order))
    if order.issued > grant.expires:
        raise ProtocolError("outdated", "The order was issued after its grant had expired.")
    if isinstance(order, Command):
        check_granted(order, grant)
    return order


def check_granted(command: Command, grant: Grant) -> None:
    """Raise ProtocolError ``foreign`` when a command asks for what its grant does not hold.

    Its content is checked when it is there: it may have to be fetched.
    """
    asked = (command.run, command.phase, command.kind, command.app)
    arrays = command.arrays.digest if command.arrays else ""
    if (*asked, arrays) != (grant.run, grant.phase, grant.kind, grant.app, grant.arrays):
        raise ProtocolError("foreign", "The command asks for what its server has not granted.")


def check_content(grant: Grant, content: str, run_config: str) -> None:
    """Raise ProtocolError ``foreign`` when content or settings are not the granted ones."""
    if content_digest(content, run_config) != grant.content:
        raise ProtocolError("foreign", "The command's content is not what its server has granted.")


def parse_grant(signed: SignedOrder) -> Grant:
    """Parse a grant whose signature has been checked. Raises ProtocolError."""
    return parse_json(bytes(signed.grant), Grant, "The grant")


def _is_older(payload: bytes) -> bool:
    try:
        parse_json(payload, _OlderCommand, "The message")
    except ProtocolError:
        return False
    return True
