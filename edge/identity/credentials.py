"""A device's key and certificate: generated on the device, switched as a pair.

Each pair has its own folder, and the link ``current`` points to one of them. A power cut during a
rotation leaves the old pair or the new one, never a key with another key's certificate. The old
pair stays, as ``previous``, until the device has connected with the new one after a start.
"""

from __future__ import annotations

import contextlib
import datetime
import shutil
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge.config import DeviceConfig
from edge.files import link_atomically, make_folder, remove_parts, write_atomically

CERTIFICATE, PRIVATE_KEY = "device.pem.crt", "private.pem.key"
CURRENT, PREVIOUS = "current", "previous"


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
        self.drop_unused()  # of renewals that were not completed
        pair = self._folder / name
        make_folder(pair)
        write_atomically(pair / PRIVATE_KEY, key, durable=True, mode=0o600)
        write_atomically(pair / CERTIFICATE, certificate.encode(), durable=True)
        return pair

    def use(self, pair: Path) -> None:
        """Switch to a pair in one step. The pair before it stays until :meth:`settle`."""
        before = self._pair(CURRENT)
        if before is not None and before != pair:
            link_atomically(self._folder / PREVIOUS, before.name, durable=True)
        # The pair itself is on the disk already, so the link never leads to half a pair.
        link_atomically(self._folder / CURRENT, pair.name, durable=True)
        self.drop_unused()

    def drop_unused(self) -> None:
        """Remove the pairs that are neither in use nor the one before."""
        self._remove_all_but(CURRENT, PREVIOUS)

    def settle(self) -> None:
        """Remove the pair before: a connection was made with the one in use."""
        (self._folder / PREVIOUS).unlink(missing_ok=True)
        self._remove_all_but(CURRENT)

    def recover(self) -> None:
        """Go back to a whole pair where the one in use is damaged, and remove files of kills."""
        remove_parts(self._folder)
        if is_whole(self._pair(CURRENT)):
            return
        for pair in (self._pair(PREVIOUS), *self.pairs()):
            if pair is not None and is_whole(pair):
                link_atomically(self._folder / CURRENT, pair.name, durable=True)
                return

    def pairs(self) -> list[Path]:
        """Return the folders of all pairs, in use or not."""
        if not self._folder.is_dir():
            return []
        return sorted(p for p in self._folder.iterdir() if p.is_dir() and not p.is_symlink())

    def _pair(self, link: str) -> Path | None:
        """Return the folder that a link leads to, if there is one."""
        path = self._folder / link
        target = self._folder / path.readlink() if path.is_symlink() else None
        return target if target is not None and target.is_dir() else None

    def _remove_all_but(self, *links: str) -> None:
        kept = {self._pair(link) for link in links}
        for pair in self.pairs():
            if pair not in kept:
                shutil.rmtree(pair)

    def since(self) -> datetime.datetime:
        """Return when the certificate in use was issued, in UTC."""
        return issued_at(self.certificate)


def issued_at(certificate: Path) -> datetime.datetime:
    """Return when a certificate was issued, in UTC. Raises ValueError for other files."""
    return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_before_utc


def credentials_of(config: DeviceConfig) -> Credentials | None:
    """Return the pairs that a device renews; None where its operator manages the files."""
    credentials = Credentials(Path(config.home) / "credentials")
    return credentials if config.certificate == str(credentials.certificate) else None


def recover_credentials(config: DeviceConfig) -> None:
    """Repair what a power cut or a damaged disk left of a device's pair, before it is used."""
    if (credentials := credentials_of(config)) is not None:
        with contextlib.suppress(OSError):  # a read-only disk: the device tries with what is there
            credentials.recover()


def is_whole(pair: Path | None) -> bool:
    """Whether a folder holds a certificate and the key that it certifies."""
    if pair is None:
        return False
    try:
        certificate = x509.load_pem_x509_certificate((pair / CERTIFICATE).read_bytes())
        key = serialization.load_pem_private_key((pair / PRIVATE_KEY).read_bytes(), None)
    except (OSError, ValueError, TypeError):
        return False
    return certificate.public_key() == key.public_key()
