"""A device's key and certificate: generated on the device, switched as a pair.

Each pair has its own folder, and the link ``current`` points to one of them. A power cut during a
rotation leaves the old pair or the new one, never a key with another key's certificate.
"""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge.files import link_atomically, write_atomically

CERTIFICATE, PRIVATE_KEY = "device.pem.crt", "private.pem.key"
CURRENT = "current"


def key_and_request(device: str) -> tuple[bytes, str]:
    """Generate a P-256 key and a certificate signing request, both PEM.

    The key must not leave this device's disk.
    https://docs.aws.amazon.com/iot/latest/developerguide/device-certs-your-own.html
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem, request.public_bytes(serialization.Encoding.PEM).decode()


class Credentials:
    """The pairs of key and certificate in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def certificate(self) -> Path:
        """The certificate in use, a PEM file."""
        return self._folder / CURRENT / CERTIFICATE

    @property
    def private_key(self) -> Path:
        """The key in use, a PEM file."""
        return self._folder / CURRENT / PRIVATE_KEY

    def store(self, name: str, key: bytes, certificate: str) -> Path:
        """Write a pair without using it yet, and return its folder.

        The key is readable by its owner only, from the first byte on.
        """
        pair = self._folder / name
        shutil.rmtree(pair, ignore_errors=True)
        pair.mkdir(parents=True)
        write_atomically(pair / PRIVATE_KEY, key, durable=True, mode=0o600)
        write_atomically(pair / CERTIFICATE, certificate.encode(), durable=True)
        return pair

    def use(self, pair: Path) -> None:
        """Switch to a pair in one step, and remove the others."""
        # The pair itself is on the disk already, so the link never leads to half a pair.
        link_atomically(self._folder / CURRENT, pair.name, durable=True)
        for other in self._folder.iterdir():
            if other.is_dir() and not other.is_symlink() and other != pair:
                shutil.rmtree(other)

    def since(self) -> datetime.datetime:
        """Return when the certificate in use was issued, in UTC."""
        return issued_at(self.certificate)


def issued_at(certificate: Path) -> datetime.datetime:
    """Return when a certificate was issued, in UTC. Raises ValueError for other files."""
    return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_before_utc
