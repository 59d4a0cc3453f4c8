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

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from edge.errors import MLEdgeOpsError
from edge.logs import event
from edge.protocol.errors import ProtocolError
from edge.protocol.names import check_name
from fl_runtime.run.aws import client
from pipelines.devices.tokens import FLEET_ATTRIBUTE, TOKEN_ATTRIBUTE, token_matches
from pipelines.handlers.aws_clients import set_up_logs

logger = logging.getLogger(__name__)

CERTIFICATES = 2
"""A device holds one certificate, and two while it rotates."""


class EnrolRequest(msgspec.Struct, rename="camel"):
    """What AWS IoT tells the hook. ``claim_certificate_id``: the certificate the device connected
    with.
    """

    client_id: str
    claim_certificate_id: str
    parameters: dict[str, str]


class EnrolmentRefused(MLEdgeOpsError):
    """The device may not enrol. The text says why; only the log tells it, never the device."""

    code = "enrolment-refused"


def check(request: EnrolRequest, iot: Any) -> str:
    """The device's name, when it may have a certificate. Raises EnrolmentRefused."""
    try:
        device = check_name("device", request.parameters.get("SerialNumber", ""))
        fleet = check_name("fleet", request.parameters.get("Fleet", ""))
    except ProtocolError as error:
        raise EnrolmentRefused(str(error)) from error
    try:
        attributes = iot.describe_thing(thingName=device)["attributes"]
    except iot.exceptions.ResourceNotFoundException as error:
        raise EnrolmentRefused(f"the device {device} is not expected") from error
    if attributes.get(FLEET_ATTRIBUTE) != fleet:
        raise EnrolmentRefused(f"the device {device} belongs to another fleet")
    own = [
        principal.rsplit("/", 1)[1]
        for principal in iot.list_thing_principals(thingName=device)["principals"]
    ]
    if request.claim_certificate_id in own:
        if request.client_id != device:
            raise EnrolmentRefused(f"the certificate of {device} was used under another name")
        if len(own) >= CERTIFICATES:
            raise EnrolmentRefused(f"the device {device} has {len(own)} certificates already")
        return device
    if own:
        raise EnrolmentRefused(
            f"the device {device} has a certificate already, and asked with another"
        )
    if not token_matches(request.parameters.get("Token", ""), attributes.get(TOKEN_ATTRIBUTE, "")):
        raise EnrolmentRefused(f"the token of {device} is wrong")
    return device


def handler(request: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point. AWS IoT tells the device only that it was refused; the log says why."""
    set_up_logs()
    try:
        device = check(msgspec.convert(request, EnrolRequest), client("iot"))
    except (EnrolmentRefused, msgspec.ValidationError) as error:
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
