"""The public keys that a device trusts, for commands and for models."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from edge.addresses import Addresses, is_loopback
from edge.config import ConfigError, DeviceConfig
from edge.protocol.errors import ProtocolError
from edge.typed import from_json

Purpose = Literal["commands", "models"]


class TrustedKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``trust.json``: public keys, DER (SubjectPublicKeyInfo) in base64.

    There may be several for one purpose, so that a key can be replaced.
    """

    commands: list[str] = []
    models: list[str] = []
    addresses: list[str] = []
    """Beginnings of the addresses that objects are downloaded from and uploaded to."""


class Trust:
    """Verifies signatures. A purpose without keys accepts none."""

    def __init__(self, keys: TrustedKeys) -> None:
        self._keys: dict[Purpose, list[ec.EllipticCurvePublicKey]] = {
            "commands": _load(keys.commands),
            "models": _load(keys.models),
        }
        self.addresses = tuple(keys.addresses)
        """As in the file."""

    @classmethod
    def of(cls, file: Path) -> Trust:
        """Load the keys of a file; no file means no keys. Raises ConfigError."""
        if not file.is_file():
            return cls(TrustedKeys())
        try:
            return cls(from_json(file.read_bytes(), type=TrustedKeys))
        except ValueError as error:
            raise ConfigError(f"{file} is malformed: {error}.") from error

    def check(self, purpose: Purpose, text: bytes, signature: str) -> None:
        """Raise ProtocolError ``unsigned`` unless one of the purpose's keys signed the text."""
        keys = self._keys[purpose]
        if not keys:
            raise ProtocolError(
                "unsigned",
                f"This device has no key for {purpose}: enrol it again, or put trust.json into its"
                " folder.",
            )
        try:
            given = base64.b64decode(signature, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ProtocolError("unsigned", "The signature is not base64.") from error
        if not any(_signed(key, text, given) for key in keys):
            raise ProtocolError(
                "unsigned",
                f"No key that this device trusts for {purpose} made the signature.",
            )


def trusted_addresses(config: DeviceConfig) -> Addresses:
    """Return where a device may download from and upload to. Raises ConfigError.

    ``trust.json`` names the addresses. A device whose broker runs on this machine belongs to a
    local cloud, whose objects are here as well.
    """
    return Addresses(Trust.of(config.trust_file).addresses, loopback=is_loopback(config.endpoint))


def _signed(key: ec.EllipticCurvePublicKey, text: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _load(keys: list[str]) -> list[ec.EllipticCurvePublicKey]:
    found = []
    for text in keys:
        try:
            key = load_der_public_key(base64.b64decode(text, validate=True))
        except (ValueError, binascii.Error) as error:
            raise ConfigError(f"A trusted key is not a public key in base64: {error}.") from error
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ConfigError("A trusted key is not an elliptic curve key.")
        found.append(key)
    return found
