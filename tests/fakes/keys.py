"""A signing key as KMS has them, for unit tests."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.identity.trust import TrustedKeys
from edge.protocol.messages import Command
from edge.protocol.records import digest
from edge.protocol.signed import Manifest, SignedManifest, command_text, manifest_text


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


COMMANDS, MODELS = Key(), Key()


def trust(file: Path, *, commands: Key = COMMANDS, models: Key = MODELS) -> None:
    """Write a device's ``trust.json``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(
        msgspec.json.encode(TrustedKeys(commands=[commands.public], models=[models.public]))
    )


def signed(command: Command, content: str | None = None, key: Key = COMMANDS) -> Command:
    """The command as a server would send it."""
    return msgspec.structs.replace(
        command,
        signature=key.sign(command_text(command, command.content if content is None else content)),
    )


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
