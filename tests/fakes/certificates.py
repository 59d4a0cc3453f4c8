"""Self-signed certificates for tests."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from edge.identity.credentials import key_and_request


def self_signed(folder: Path, *, days: float = 0) -> dict[str, str]:
    """Files of a key and its certificate, issued so many days ago; the CA is the certificate."""
    pem, _ = key_and_request("d0")
    key, name = load_pem_private_key(pem, None), x509.Name([])
    issued = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(issued)
        .not_valid_after(issued + datetime.timedelta(days=days + 10))
        .sign(key, hashes.SHA256())
    )
    certificate, private_key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    private_key.write_bytes(pem)
    os.utime(certificate, (issued.timestamp(), issued.timestamp()))  # stored when it was issued
    return {
        "certificate": str(certificate),
        "private_key": str(private_key),
        "ca": str(certificate),
    }
