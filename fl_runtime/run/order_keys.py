"""Keys that sign orders to devices: made for one phase and cohort, and granted by the KMS key."""

from __future__ import annotations

import base64

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.protocol.messages import Claim, Command
from edge.protocol.orders import Grant, SignedOrder, grant_text, order_text
from fl_runtime.run.messages import OrderKey
from fl_runtime.run.signing import Signer


def new_key_pair() -> tuple[bytes, str]:
    """A new Ed25519 key: its private half, and the public one as a grant names it."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes_raw(), base64.b64encode(key.public_key().public_bytes_raw()).decode()


def order_key(grant: Grant, private: bytes, sign: Signer) -> OrderKey:
    """Have a grant signed."""
    encoded = msgspec.json.encode(grant)
    return OrderKey(private, encoded, sign(grant_text(encoded)))


def sign_order(order: Command | Claim, key: OrderKey) -> bytes:
    """An order as it is published."""
    return sign_encoded(msgspec.json.encode(order), key)


def sign_encoded(order: bytes, key: OrderKey) -> bytes:
    """An encoded order as it is published."""
    signature = Ed25519PrivateKey.from_private_bytes(key.private).sign(order_text(order))
    return msgspec.json.encode(
        SignedOrder(
            grant=msgspec.Raw(key.grant),
            grant_signature=key.signature,
            order=msgspec.Raw(order),
            signature=base64.b64encode(signature).decode(),
        )
    )
