"""A device's key and certificate: made on the device, switched as a pair.

Each pair has a folder of its own and ``current`` is a link to one of them, so that a power cut
during a
rotation leaves the old pair or the new one, never a key beside another key's certificate.
"""

from __future__ import annotations

import datetime
import os
import shutil
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CERTIFICATE, PRIVATE_KEY = "device.pem.crt", "private.pem.key"
CURRENT = "current"


def key_and_request(device: str) -> tuple[bytes, str]:
    """A new P-256 key and a request to certify it, both PEM. The key is for this device's disk
    only.

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
    """The pairs in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def certificate(self) -> Path:
        """The certificate in use, as PEM."""
        return self._folder / CURRENT / CERTIFICATE

    @property
    def private_key(self) -> Path:
        """The key in use, as PEM."""
        return self._folder / CURRENT / PRIVATE_KEY

    def store(self, name: str, key: bytes, certificate: str) -> Path:
        """Write a pair, not in use yet; returns its folder. Readable by its owner only, from the
        first byte on.
        """
        pair = self._folder / name
        shutil.rmtree(pair, ignore_errors=True)
        pair.mkdir(parents=True)
        descriptor = os.open(pair / PRIVATE_KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(key)
        (pair / CERTIFICATE).write_text(certificate)
        return pair

    def use(self, pair: Path) -> None:
        """Switch to a pair, by one rename, and forget the others."""
        link = self._folder / f".{CURRENT}"
        link.unlink(missing_ok=True)
        link.symlink_to(pair.name)
        link.replace(self._folder / CURRENT)
        for other in self._folder.iterdir():
            if other.is_dir() and not other.is_symlink() and other != pair:
                shutil.rmtree(other)

    def since(self) -> datetime.datetime:
        """When the certificate in use was issued."""
        return issued_at(self.certificate)


def issued_at(certificate: Path) -> datetime.datetime:
    """When a certificate was issued, in UTC. Raises ValueError for what is none."""
    return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_before_utc
