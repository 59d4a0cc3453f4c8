"""Enrols a device as a fleet operator does: its key is made where it is used, and only a CSR leaves it.

https://docs.aws.amazon.com/iot/latest/developerguide/device-certs-your-own.html
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge.device_config import DeviceConfig
from edge.protocol.names import check_name


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where devices connect, and the CA they trust."""

    host: str
    port: int
    ca: bytes


def enrol(iot: Any, policy: str, endpoint: Endpoint, config: DeviceConfig) -> None:
    """Make key, certificate and thing, and write the device's files; does nothing for a device that has them."""
    check_name("fleet", config.fleet)
    check_name("device", config.device)
    home = Path(config.home)
    home.mkdir(parents=True, exist_ok=True)
    Path(config.ca).write_bytes(endpoint.ca)
    (home / "device.json").write_bytes(msgspec.json.format(msgspec.json.encode(config)))
    if Path(config.certificate).is_file():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, config.device)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    made = iot.create_certificate_from_csr(
        certificateSigningRequest=request.public_bytes(serialization.Encoding.PEM).decode(), setAsActive=True
    )
    iot.create_thing(thingName=config.device, attributePayload={"attributes": {"fleet": config.fleet}})
    iot.attach_policy(policyName=policy, target=made["certificateArn"])
    iot.attach_thing_principal(thingName=config.device, principal=made["certificateArn"])
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write_private(Path(config.private_key), pem)
    # The certificate last: its presence says that enrolment is complete.
    Path(config.certificate).write_text(made["certificatePem"])


def _write_private(file: Path, data: bytes) -> None:
    """Readable by its owner only, from the first byte on."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
