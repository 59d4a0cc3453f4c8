"""Signatures by KMS are those that devices verify."""

from __future__ import annotations

import base64
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fl_runtime.run.signing import kms_signer, public_key


class MemoryKms:
    """KMS with one key of the kind that the stack creates (ECC_NIST_P256)."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def sign(self, **given: Any) -> dict[str, bytes]:
        assert given["KeyId"] == "alias/commands"
        assert (given["MessageType"], given["SigningAlgorithm"]) == ("RAW", "ECDSA_SHA_256")
        return {"Signature": self._key.sign(given["Message"], ec.ECDSA(hashes.SHA256()))}

    def get_public_key(self, **given: Any) -> dict[str, bytes]:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return {"PublicKey": self._key.public_key().public_bytes(serialization.Encoding.DER, form)}


def test_a_signature_verifies_with_the_public_key() -> None:
    kms = MemoryKms()
    signature = base64.b64decode(kms_signer(kms, "alias/commands")(b"text"))
    public = serialization.load_der_public_key(base64.b64decode(public_key(kms, "alias/commands")))
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(signature, b"text", ec.ECDSA(hashes.SHA256()))
