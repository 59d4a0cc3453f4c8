"""The operator's side of device certificates: who is expected, who is to renew, which old ones go."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edge.errors import MLEdgeOpsError
from edge.identity.credentials import Credentials, key_and_request
from edge.protocol.names import check_name
from edge.transports.provisioning import ProvisioningClaim
from fl_runtime.run.devices import DeviceTable
from pipelines.deployment import Deployment
from pipelines.devices.provisioning import Endpoint
from pipelines.devices.tokens import FLEET_ATTRIBUTE, TOKEN_ATTRIBUTE, token_digest

CLAIM = "claim"


class EnrolledAlready(MLEdgeOpsError):
    """The device holds a certificate, so a claim for it would be refused."""

    code = "enrolled-already"


@dataclass(frozen=True, kw_only=True)
class Retired:
    """A certificate that was taken from a device."""

    device: str
    certificate: str


def expect(
    d: Deployment,
    iot: Any,
    endpoint: Endpoint,
    fleet: str,
    devices: list[str],
    out: Path,
    device_home: str,
) -> list[Path]:
    """Make each device's thing and claim file, and the claim certificate that the files share;
    returns the files.

    A device that is expected again gets a new token; the old one is void. ``device_home``: the
    agent's folder on the device.
    Raises ProtocolError for a name that cannot be one, EnrolledAlready for a device that has a
    certificate.
    """
    check_name("fleet", fleet)
    for device in devices:
        check_name("device", device)
        _refuse_enrolled(iot, device)
    out.mkdir(parents=True, exist_ok=True)
    _claim_certificate(d, iot, out)
    (out / "ca.pem").write_bytes(endpoint.ca)
    (out / "trust.json").write_bytes(endpoint.trust)
    files = []
    for device in devices:
        token = secrets.token_urlsafe(32)
        attributes = {"attributes": {FLEET_ATTRIBUTE: fleet, TOKEN_ATTRIBUTE: token_digest(token)}}
        try:
            iot.create_thing(
                thingName=device, thingTypeName=d.thing_type, attributePayload=attributes
            )
        except iot.exceptions.ResourceAlreadyExistsException:
            iot.update_thing(thingName=device, attributePayload={**attributes, "merge": True})
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
        file = out / f"{device}.json"
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(claim)))
        files.append(file)
    return files


def _refuse_enrolled(iot: Any, device: str) -> None:
    """A claim for a device that has a certificate would be refused when it is used: say so when it
    is made.
    """
    try:
        held = iot.list_thing_principals(thingName=device)["principals"]
    except iot.exceptions.ResourceNotFoundException:
        return
    if held:
        raise EnrolledAlready(
            f"{device} is enrolled and has a certificate: deactivate and detach it in AWS IoT first, if the device has lost it."
        )


def _claim_certificate(d: Deployment, iot: Any, out: Path) -> None:
    """One for all files of a folder; it may do nothing but ask for a device's own."""
    credentials = Credentials(out)
    if credentials.certificate.is_file():
        return
    key, request = key_and_request(CLAIM)
    made = iot.create_certificate_from_csr(certificateSigningRequest=request, setAsActive=True)
    iot.attach_policy(policyName=d.claim_policy, target=made["certificateArn"])
    credentials.use(credentials.store(CLAIM, key, made["certificatePem"]))


def rotate(iot_data: Any, devices: list[str], after: float) -> None:
    """Ask devices, by their shadows, to renew a certificate that was issued before a moment; one
    that is away does it when it is back.
    """
    payload = msgspec.json.encode({"state": {"desired": {"certificate_after": after}}})
    for device in devices:
        iot_data.update_thing_shadow(thingName=device, payload=payload)


def retire(iot: Any, rows: Iterator[tuple[str, str]]) -> list[Retired]:
    """Take from each device the certificates that are older than the one it was last heard with.
    ``rows``: (device, certificate id).
    """
    retired = []
    for device, in_use in rows:
        principals = iot.list_thing_principals(thingName=device)["principals"]
        own = {arn.rsplit("/", 1)[1]: arn for arn in principals}
        if len(own) < 2 or in_use not in own:
            continue
        made = {
            name: iot.describe_certificate(certificateId=name)["certificateDescription"][
                "creationDate"
            ]
            for name in own
        }
        for name, arn in own.items():
            if name != in_use and made[name] <= made[in_use]:
                iot.update_certificate(certificateId=name, newStatus="INACTIVE")
                iot.detach_thing_principal(thingName=device, principal=arn)
                retired.append(Retired(device=device, certificate=name))
    return retired


def heard_with(dynamodb: Any, d: Deployment) -> Iterator[tuple[str, str]]:
    """(device, certificate id) of each device's last heartbeat, as the broker saw it."""
    for status in DeviceTable(dynamodb, d.devices_table).all():
        if status.certificate:
            yield status.device, status.certificate
