"""Signatures by AWS KMS. The private keys never leave KMS."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

Signer = Callable[[bytes], str]
"""Signs a text. The signature is ASN.1 DER in base64."""
Verifier = Callable[[bytes, str], bool]
"""Whether a signature, as :data:`Signer` makes it, is one of a text."""
ALGORITHM = "ECDSA_SHA_256"


def kms_signer(kms: Any, key: str) -> Signer:
    """A signer with the key of this alias, for texts of at most 4,096 bytes:
    https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html
    """

    def sign(text: bytes) -> str:
        answer = kms.sign(KeyId=key, Message=text, MessageType="RAW", SigningAlgorithm=ALGORITHM)
        return base64.b64encode(answer["Signature"]).decode()

    return sign


def kms_verifier(kms: Any, key: str) -> Verifier:
    """A verifier of what the key of this alias signed:
    https://docs.aws.amazon.com/kms/latest/APIReference/API_Verify.html
    """

    def verify(text: bytes, signature: str) -> bool:
        try:
            given = base64.b64decode(signature, validate=True)
            answer = kms.verify(
                KeyId=key,
                Message=text,
                MessageType="RAW",
                Signature=given,
                SigningAlgorithm=ALGORITHM,
            )
        except (kms.exceptions.KMSInvalidSignatureException, binascii.Error):
            return False
        return bool(answer["SignatureValid"])

    return verify


def public_key(kms: Any, key: str) -> str:
    """The public half of a key, SubjectPublicKeyInfo in DER and base64, as devices store it."""
    return base64.b64encode(kms.get_public_key(KeyId=key)["PublicKey"]).decode()
