"""Device certificates, for operators: expect new devices, rotate certificates, retire old ones."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edge.errors import MLEdgeOpsError
from edge.files import remove_parts, write_atomically
from edge.identity.credentials import Credentials, key_and_request
from edge.protocol.names import check_name
from edge.transports.provisioning import ProvisioningClaim
from fl_runtime.run.devices import DeviceTable
from pipelines.deployment import Deployment
from pipelines.devices.provisioning import DeviceEndpoint
from pipelines.devices.tokens import (
    EXPIRY_ATTRIBUTE,
    FLEET_ATTRIBUTE,
    TOKEN_ATTRIBUTE,
    token_digest,
)

CLAIM = "claim"


class EnrolledAlready(MLEdgeOpsError):
    """The device holds a certificate, so a claim for it would be refused."""

    code = "enrolled-already"


@dataclass(frozen=True, kw_only=True)
class Retired:
    """A certificate that was detached from its device and deactivated."""

    device: str
    certificate: str


def expect(
    d: Deployment,
    iot: Any,
    endpoint: DeviceEndpoint,
    fleet: str,
    devices: list[str],
    out: Path,
    device_home: str,
    *,
    expires_at: float,
) -> list[Path]:
    """Create each device's thing and claim file, and the claim certificate that the files share;
    returns the files.

    A device that is expected again gets a new token, and the old one is void. ``device_home``: the
    agent's folder on the device. ``expires_at``: when the tokens expire, in Unix seconds. Raises
    ProtocolError for an illegal name, EnrolledAlready for a device that has a certificate.
    """
    check_name("fleet", fleet)
    for device in devices:
        check_name("device", device)
        _refuse_enrolled(iot, device)
    out.mkdir(parents=True, exist_ok=True)
    remove_parts(out)  # of a command that was killed: they hold tokens
    _claim_certificate(d, iot, out)
    write_atomically(out / "ca.pem", endpoint.ca, durable=True)
    write_atomically(out / "trust.json", endpoint.trust, durable=True)
    files = []
    for device in devices:
        token = secrets.token_urlsafe(32)
        _expect_thing(d, iot, fleet, device, token, expires_at)
        claim = ProvisioningClaim(
            fleet=fleet,
            device=device,
            endpoint=endpoint.host,
            port=endpoint.port,
            certificate=f"{device_home}/claim/device.pem.crt",
            private_key=f"{device_home}/claim/private.pem.key",
            ca=f"{device_home}/ca.pem",
            template=d.provisioning_template,
            token=token,
            home=device_home,
        )
        files.append(out / f"{device}.json")
        content = msgspec.json.format(msgspec.json.encode(claim))
        write_atomically(files[-1], content, durable=True, mode=0o600)  # the token is a secret
    return files


def _expect_thing(
    d: Deployment, iot: Any, fleet: str, device: str, token: str, expires_at: float
) -> None:
    values = {
        FLEET_ATTRIBUTE: fleet,
        TOKEN_ATTRIBUTE: token_digest(token),
        EXPIRY_ATTRIBUTE: str(int(expires_at)),
    }
    attributes = {"attributes": values}
    try:
        iot.create_thing(thingName=device, thingTypeName=d.thing_type, attributePayload=attributes)
    except iot.exceptions.ResourceAlreadyExistsException:
        iot.update_thing(thingName=device, attributePayload={**attributes, "merge": True})
    iot.add_thing_to_thing_group(thingGroupName=d.thing_group, thingName=device)


def _refuse_enrolled(iot: Any, device: str) -> None:
    """Raise EnrolledAlready for a device with a certificate: the hook would refuse its claim."""
    try:
        held = iot.list_thing_principals(thingName=device)["principals"]
    except iot.exceptions.ResourceNotFoundException:
        return
    if held:
        raise EnrolledAlready(
            f"{device} is enrolled and has a certificate: deactivate and detach it in AWS IoT "
            "first, if the device has lost it."
        )


def _claim_certificate(d: Deployment, iot: Any, out: Path) -> None:
    """Create the claim certificate of a folder, unless it is there. It can only request a device's
    own certificate.
    """
    credentials = Credentials(out)
    if credentials.certificate.is_file():
        return
    key, request = key_and_request(CLAIM)
    made = iot.create_certificate_from_csr(certificateSigningRequest=request, setAsActive=True)
    iot.attach_policy(policyName=d.claim_policy, target=made["certificateArn"])
    credentials.use(credentials.store(CLAIM, key, made["certificatePem"]))


def rotate(iot_data: Any, devices: list[str], after: float) -> None:
    """Request, by their shadows, that devices renew a certificate issued before ``after`` (Unix
    seconds). A device that is offline does so once it is back.
    """
    payload = msgspec.json.encode({"state": {"desired": {"certificate_after": after}}})
    for device in devices:
        iot_data.update_thing_shadow(thingName=device, payload=payload)


def retire(iot: Any, rows: Iterator[tuple[str, str]]) -> list[Retired]:
    """Deactivate and detach the certificates that are older than the one that a device uses.

    ``rows``: (device, id of the certificate in use), as :func:`heard_with` gives them.
    """
    retired = []
    for device, in_use in rows:
        for certificate, arn in _older(iot, device, in_use):
            iot.update_certificate(certificateId=certificate, newStatus="INACTIVE")
            iot.detach_thing_principal(thingName=device, principal=arn)
            retired.append(Retired(device=device, certificate=certificate))
    return retired


def _older(iot: Any, device: str, in_use: str) -> list[tuple[str, str]]:
    """(id, ARN) of the certificates of a device that are older than the one in use."""
    principals = iot.list_thing_principals(thingName=device)["principals"]
    own = {arn.rsplit("/", 1)[1]: arn for arn in principals}
    if len(own) < 2 or in_use not in own:
        return []
    made = {
        name: iot.describe_certificate(certificateId=name)["certificateDescription"]["creationDate"]
        for name in own
    }
    return [
        (name, arn) for name, arn in own.items() if name != in_use and made[name] <= made[in_use]
    ]


def heard_with(dynamodb: Any, d: Deployment) -> Iterator[tuple[str, str]]:
    """(device, certificate id) of each device's last heartbeat, as the broker saw it."""
    for status in DeviceTable(dynamodb, d.devices_table).all():
        if status.certificate:
            yield status.device, status.certificate
