"""Enrols a device directly, as an operator can.

The key is generated where it is used, and only a CSR leaves it:
https://docs.aws.amazon.com/iot/latest/developerguide/device-certs-your-own.html
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edge.config import DeviceConfig
from edge.files import write_atomically
from edge.identity.credentials import Credentials, key_and_request
from edge.identity.trust import TrustedKeys
from edge.protocol.names import check_name
from fl_runtime.run.signing import public_key
from pipelines.deployment import Deployment


@dataclass(frozen=True, kw_only=True)
class DeviceEndpoint:
    """Where devices connect, and what they trust."""

    host: str
    port: int
    ca: bytes
    trust: bytes
    """The content of ``trust.json``: the public keys that sign commands and models."""


def trusted_keys(kms: Any, deployment: Deployment) -> bytes:
    """The content of ``trust.json`` for a deployment's devices."""
    keys = TrustedKeys(
        commands=[public_key(kms, deployment.commands_key)],
        models=[public_key(kms, deployment.models_key)],
        addresses=object_addresses(deployment.bucket, deployment.region),
    )
    return msgspec.json.format(msgspec.json.encode(keys))


def object_addresses(bucket: str, region: str) -> list[str]:
    """Beginnings of the addresses of a bucket's objects.

    The SDK presigns the first or the second form, and IoT jobs carry the third:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
    """
    return [
        f"https://{bucket}.s3.amazonaws.com/",
        f"https://{bucket}.s3.{region}.amazonaws.com/",
        f"https://s3.{region}.amazonaws.com/{bucket}/",
    ]


def enrol(iot: Any, policy: str, endpoint: DeviceEndpoint, config: DeviceConfig) -> None:
    """Create key, certificate and thing, and write the device's files (idempotent)."""
    check_name("fleet", config.fleet)
    check_name("device", config.device)
    home = Path(config.home)
    home.mkdir(parents=True, exist_ok=True)
    write_atomically(Path(config.ca), endpoint.ca, durable=False)
    write_atomically(config.trust_file, endpoint.trust, durable=False)
    settings = msgspec.json.format(msgspec.json.encode(config))
    write_atomically(home / "device.json", settings, durable=False)
    if Path(config.certificate).is_file():
        return
    iot.create_thing(
        thingName=config.device, attributePayload={"attributes": {"fleet": config.fleet}}
    )
    _remove_certificates(iot, config.device)
    key, request = key_and_request(config.device)
    made = iot.create_certificate_from_csr(certificateSigningRequest=request, setAsActive=True)
    iot.attach_policy(policyName=policy, target=made["certificateArn"])
    iot.attach_thing_principal(thingName=config.device, principal=made["certificateArn"])
    # The certificate comes last: its presence means that enrolment is complete.
    credentials = Credentials(home / "credentials")
    credentials.use(credentials.store(made["certificateId"][:16], key, made["certificatePem"]))


def _remove_certificates(iot: Any, device: str) -> None:
    """Deactivate and detach what an enrolment that was killed has left: its key is lost."""
    for arn in iot.list_thing_principals(thingName=device)["principals"]:
        iot.update_certificate(certificateId=arn.rsplit("/", 1)[1], newStatus="INACTIVE")
        iot.detach_thing_principal(thingName=device, principal=arn)
