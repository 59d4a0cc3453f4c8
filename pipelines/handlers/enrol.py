"""Decides whether AWS IoT may enrol a device: is it expected, and is it who it says?

It is a pre-provisioning hook:
https://docs.aws.amazon.com/iot/latest/developerguide/pre-provisioning-hook.html

The claim certificate is on every new device, so it proves nothing. A device is enrolled only if an
operator created its thing beforehand (``mledgeops devices expect``), it knows the token made then,
and its thing has no certificate. A device with a certificate may request the successor with that
certificate, for itself only. A device that an operator has blocked gets none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from edge.errors import MLEdgeOpsError
from edge.logs import event
from edge.protocol.errors import ProtocolError
from edge.protocol.names import check_name
from edge.typed import convert
from fl_runtime.run.blocking import Block
from pipelines.devices.tokens import FLEET_ATTRIBUTE, TOKEN_ATTRIBUTE, token_expiry, token_matches
from pipelines.handlers.aws_clients import block_list, iot

logger = logging.getLogger(__name__)

CERTIFICATES = 2
"""Certificates that a device may hold: two while it rotates, else one."""


class EnrolRequest(msgspec.Struct, rename="camel"):
    """What AWS IoT tells the hook."""

    client_id: str
    claim_certificate_id: str
    """The certificate with which the device connected."""
    parameters: dict[str, str]


class EnrolmentRefused(MLEdgeOpsError):
    """The device may not enrol. The text says why; only the log tells it, never the device."""

    code = "enrolment-refused"


def check(
    request: EnrolRequest, iot_client: Any, block_of: Callable[[str], Block | None], now: float
) -> str:
    """The name of the device that may have a certificate at Unix time ``now``.

    Raises EnrolmentRefused.
    """
    try:
        device = check_name("device", request.parameters.get("SerialNumber", ""))
        fleet = check_name("fleet", request.parameters.get("Fleet", ""))
    except ProtocolError as error:
        raise EnrolmentRefused(str(error)) from error
    try:
        attributes = iot_client.describe_thing(thingName=device)["attributes"]
    except iot_client.exceptions.ResourceNotFoundException as error:
        raise EnrolmentRefused(f"the device {device} is not expected") from error
    if attributes.get(FLEET_ATTRIBUTE) != fleet:
        raise EnrolmentRefused(f"the device {device} belongs to another fleet")
    if (block := block_of(device)) is not None:
        raise EnrolmentRefused(f"the device {device} is blocked by {block.by}: {block.reason}")
    principals = iot_client.list_thing_principals(thingName=device)["principals"]
    own = [principal.rsplit("/", 1)[1] for principal in principals]
    if request.claim_certificate_id in own:
        _check_rotation(request, device, len(own))
    elif own:
        raise EnrolmentRefused(
            f"the device {device} has a certificate already, and asked with another"
        )
    elif not token_matches(
        request.parameters.get("Token", ""), attributes.get(TOKEN_ATTRIBUTE, "")
    ):
        raise EnrolmentRefused(f"the token of {device} is wrong")
    else:
        _check_expiry(device, token_expiry(attributes), now)
    return device


def _check_expiry(device: str, expires_at: float, now: float) -> None:
    again = "`mledgeops devices expect` makes a new one"
    if not expires_at:
        raise EnrolmentRefused(
            f"the token of {device} has no expiry, so version 0.4 or earlier made it: {again}"
        )
    if now >= expires_at:
        raise EnrolmentRefused(f"the token of {device} has expired: {again}")


def _check_rotation(request: EnrolRequest, device: str, held: int) -> None:
    """A device that asks with its own certificate wants the successor."""
    if request.client_id != device:
        raise EnrolmentRefused(f"the certificate of {device} was used under another name")
    if held >= CERTIFICATES:
        raise EnrolmentRefused(f"the device {device} has {held} certificates already")


def handler(request: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point. AWS IoT tells the device only that it was refused; the log says why."""
    try:
        device = check(convert(request, EnrolRequest), iot(), block_list().find, time.time())
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
