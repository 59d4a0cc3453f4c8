"""A signing key as KMS has them, for unit tests."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.identity.trust import TrustedKeys
from edge.protocol.messages import Claim, Command, ObjectRef
from edge.protocol.orders import Grant, content_digest
from edge.protocol.records import digest
from edge.protocol.signed import Manifest, SignedManifest, manifest_text
from fl_runtime.run.order_keys import new_key_pair, order_key, sign_encoded


class Key:
    """An ECDSA P-256 key."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public(self) -> str:
        return base64.b64encode(
            self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ).decode()

    def sign(self, text: bytes) -> str:
        return base64.b64encode(self._key.sign(text, ec.ECDSA(hashes.SHA256()))).decode()

    def verify(self, text: bytes, signature: str) -> bool:
        try:
            given = base64.b64decode(signature, validate=True)
            self._key.public_key().verify(given, text, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, binascii.Error):  # as KMS, and who asks it
            return False
        return True


COMMANDS, MODELS, RECORDS = Key(), Key(), Key()


def trust(file: Path, *, commands: Key = COMMANDS, models: Key = MODELS) -> None:
    """Write a device's ``trust.json``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(
        msgspec.json.encode(TrustedKeys(commands=[commands.public], models=[models.public]))
    )


PRIVATE, PUBLIC = new_key_pair()


def a_grant(command: Command, **changes: object) -> Grant:
    """The grant of a command's phase, to a cohort of the fleet ``f``."""
    fields = {
        "run": command.run,
        "phase": command.phase,
        "kind": command.kind,
        "fleet": "f",
        "cohort": "c0000",
        "app": command.app,
        "arrays": command.arrays.digest if command.arrays else "",
        "content": content_digest(command.content, command.run_config),
        "key": PUBLIC,
        "expires": 2**52,
    }
    return Grant(**{**fields, **changes})


def sealed(
    command: Command,
    order: Claim | Command | bytes | None = None,
    key: Key = COMMANDS,
    private: bytes = PRIVATE,
    **grant: object,
) -> bytes:
    """A command as a cohort sends it, or another order that is signed under its grant.

    ``grant``: what the grant has else.
    """
    granted = order_key(a_grant(command, **grant), private, key.sign)
    encoded = order if isinstance(order, bytes) else msgspec.json.encode(order or command)
    return sign_encoded(encoded, granted)


def claim_of(asked: Command, url: str, **changes: object) -> tuple[Claim, bytes]:
    """The claim for a command, and the object that it names."""
    body = msgspec.json.encode(asked)
    fields = {
        "device": asked.device,
        "issued": asked.issued,
        "message_id": asked.message_id,
        "command": ObjectRef(digest(body), len(body), url),
        "seconds": 60.0,
    }
    return Claim(**{**fields, **changes}), body


def document(manifest: Manifest, url: str = "url", key: Key = MODELS) -> SignedManifest:
    """A job's document."""
    text = manifest_text(manifest)
    return SignedManifest(manifest=text.decode(), signature=key.sign(text), url=url)


def a_manifest(weights: bytes = b"weights", sequence: int = 1, **changes: object) -> Manifest:
    """A manifest for the fleet ``f``; its metric is an accuracy."""
    fields = {
        "fleet": "f",
        "model_version": f"wind/{sequence}",
        "digest": digest(weights),
        "size": len(weights),
        "app": "a" * 64,
        "metric": "accuracy",
        "goal": "maximize",
        "tolerance": 0.05,
        "sequence": sequence,
    }
    return Manifest(**{**fields, **changes})
