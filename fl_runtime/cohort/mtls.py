"""Mutual TLS for one run: a CA made in memory, one identity for the server and one for each cohort.

A certificate's common name is its cohort, so a proxy speaks for no other. A cohort's identity
reaches its proxy through AWS Secrets Manager, and is deleted when the run ends.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
from collections.abc import Iterable
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge.typed import from_json

LIFETIME = datetime.timedelta(days=31)
"""Longer than the longest run."""
SKEW = datetime.timedelta(hours=1)
"""How far behind a proxy's clock may be."""


class Identity(msgspec.Struct, frozen=True):
    """A private key, its certificate and the CA that both sides trust, as PEM."""

    ca: bytes
    certificate: bytes
    key: bytes


def make_identities(address: str, cohorts: Iterable[str]) -> tuple[Identity, dict[str, Identity]]:
    """The server's identity, and one for the proxy of each cohort.

    Args:
        address: The IP address at which the server listens.
        cohorts: Names of the cohorts.

    """
    now = datetime.datetime.now(datetime.UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mledgeops run")])
    ca = (
        _builder(ca_name, ca_name, ca_key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )

    def issue(name: str, usage: x509.ObjectIdentifier) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = _builder(subject, ca_name, key, now).add_extension(
            x509.ExtendedKeyUsage([usage]), critical=False
        )
        if usage == ExtendedKeyUsageOID.SERVER_AUTH:
            listens = x509.IPAddress(ipaddress.ip_address(address))
            certificate = certificate.add_extension(
                x509.SubjectAlternativeName([listens]), critical=False
            )
        signed = certificate.sign(ca_key, hashes.SHA256())
        return Identity(_pem(ca), _pem(signed), _key_pem(key))

    proxies = {cohort: issue(cohort, ExtendedKeyUsageOID.CLIENT_AUTH) for cohort in cohorts}
    return issue("server", ExtendedKeyUsageOID.SERVER_AUTH), proxies


def publish_identity(secrets: Any, name: str, identity: Identity) -> None:
    """Store a cohort's identity (idempotent): one that exists is replaced."""
    value = msgspec.json.encode(identity).decode()
    try:
        secrets.create_secret(Name=name, SecretString=value)
    except secrets.exceptions.ResourceExistsException:
        secrets.put_secret_value(SecretId=name, SecretString=value)


def read_identity(secrets: Any, name: str) -> Identity:
    """A cohort's identity, as the server published it."""
    return from_json(secrets.get_secret_value(SecretId=name)["SecretString"], type=Identity)


def delete_identity(secrets: Any, name: str) -> None:
    """Delete a cohort's identity at once, without a recovery window (idempotent)."""
    with contextlib.suppress(secrets.exceptions.ResourceNotFoundException):
        secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)


def secret_name(prefix: str, run: str, epoch: int, cohort: str) -> str:
    """Name of the secret for one cohort of one server of a run. Each server has its own, so that
    one that ends does not delete its successor's. ``prefix``: the deployment's, by which its roles
    may use its own secrets only.
    """
    return f"{prefix}/{run}/proxy-{epoch}/{cohort}"


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + LIFETIME)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
