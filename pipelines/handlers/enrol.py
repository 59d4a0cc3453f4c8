"""Before AWS IoT enrols a device: is it expected, and is it who it says?

The pre-provisioning hook of
https://docs.aws.amazon.com/iot/latest/developerguide/pre-provisioning-hook.html.
The claim certificate is on every new device, so it proves nothing. A device is enrolled only when
the operator
made its thing beforehand (``mledgeops fleet expect``), it knows the token made then, and no
certificate is
attached yet. A device that has a certificate may ask for its successor with that certificate, and
for itself only.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from edge.logs import event
from edge.protocol.errors import ProtocolError
from edge.protocol.names import check_name
from fl_runtime.run.aws import client
from pipelines.handlers.aws_clients import set_up_logs

logger = logging.getLogger(__name__)

TOKEN_ATTRIBUTE = "enrolment_token_sha256"  # noqa: S105  # the name of an attribute
FLEET_ATTRIBUTE = "fleet"
CERTIFICATES = 2
"""A device holds one certificate, and two while it rotates."""


class Request(msgspec.Struct, rename="camel"):
    """What AWS IoT tells the hook. ``claim_certificate_id``: the certificate the device connected
    with.
    """

    client_id: str
    claim_certificate_id: str
    parameters: dict[str, str]


class Refused(Exception):
    """An enrolment that is not allowed, with the reason."""


def token_digest(token: str) -> str:
    """What the thing keeps of its enrolment token."""
    return hashlib.sha256(token.encode()).hexdigest()


def check(request: Request, iot: Any) -> str:
    """The device's name, when it may have a certificate. Raises Refused."""
    try:
        device = check_name("device", request.parameters.get("SerialNumber", ""))
        fleet = check_name("fleet", request.parameters.get("Fleet", ""))
    except ProtocolError as error:
        raise Refused(str(error)) from error
    try:
        attributes = iot.describe_thing(thingName=device)["attributes"]
    except iot.exceptions.ResourceNotFoundException as error:
        raise Refused(f"the device {device} is not expected") from error
    if attributes.get(FLEET_ATTRIBUTE) != fleet:
        raise Refused(f"the device {device} belongs to another fleet")
    own = [
        principal.rsplit("/", 1)[1]
        for principal in iot.list_thing_principals(thingName=device)["principals"]
    ]
    if request.claim_certificate_id in own:
        if request.client_id != device:
            raise Refused(f"the certificate of {device} was used under another name")
        if len(own) >= CERTIFICATES:
            raise Refused(f"the device {device} has {len(own)} certificates already")
        return device
    if own:
        raise Refused(f"the device {device} has a certificate already, and asked with another")
    expected = attributes.get(TOKEN_ATTRIBUTE, "")
    if not expected or not hmac.compare_digest(
        expected, token_digest(request.parameters.get("Token", ""))
    ):
        raise Refused(f"the token of {device} is wrong")
    return device


def handler(request: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point. AWS IoT tells the device only that it was refused; the log says why."""
    set_up_logs()
    try:
        device = check(msgspec.convert(request, Request), client("iot"))
    except (Refused, msgspec.ValidationError) as error:
        event(
            logger,
            "enrolment-refused",
            logging.WARNING,
            reason=str(error),
            client_id=str(request.get("clientId", ""))[:128],
        )
        return {"allowProvisioning": False}
    event(logger, "enrolled", device=device)
    return {"allowProvisioning": True}
