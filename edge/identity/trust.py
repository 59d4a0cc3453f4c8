"""The public keys that a device believes: those of its servers' commands, and those of the models
it may run.
"""

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

from edge.protocol.errors import ProtocolError

Purpose = Literal["commands", "models"]


class TrustedKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``trust.json``: public keys, DER (SubjectPublicKeyInfo) in base64. Several at once while a
    key is changed.
    """

    commands: list[str] = []
    models: list[str] = []


class Trust:
    """Checks signatures. Without a key nothing is believed."""

    def __init__(self, keys: TrustedKeys) -> None:
        self._keys: dict[Purpose, list[ec.EllipticCurvePublicKey]] = {
            "commands": _load(keys.commands),
            "models": _load(keys.models),
        }

    @classmethod
    def of(cls, file: Path) -> Trust:
        """The keys of a file; a device without one believes nobody. Raises ValueError for a file
        that is malformed.
        """
        if not file.is_file():
            return cls(TrustedKeys())
        try:
            return cls(msgspec.json.decode(file.read_bytes(), type=TrustedKeys))
        except msgspec.DecodeError as error:
            raise ValueError(f"{file} is malformed: {error}.") from error

    def check(self, purpose: Purpose, text: bytes, signature: str) -> None:
        """Raises ProtocolError ``unsigned`` unless one of the purpose's keys signed the text."""
        keys = self._keys[purpose]
        if not keys:
            raise ProtocolError(
                "unsigned",
                f"This device has no key for {purpose}: enrol it again, or put trust.json into its folder.",
            )
        try:
            given = base64.b64decode(signature, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ProtocolError("unsigned", "The signature is not base64.") from error
        for key in keys:
            try:
                key.verify(given, text, ec.ECDSA(hashes.SHA256()))
            except InvalidSignature:
                continue
            return
        raise ProtocolError(
            "unsigned",
            f"The signature is by none of the keys that this device trusts for {purpose}.",
        )


def _load(keys: list[str]) -> list[ec.EllipticCurvePublicKey]:
    found = []
    for text in keys:
        try:
            key = load_der_public_key(base64.b64decode(text, validate=True))
        except (ValueError, binascii.Error) as error:
            raise ValueError(f"A trusted key is not a public key in base64: {error}.") from error
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("A trusted key is not an elliptic curve key.")
        found.append(key)
    return found
