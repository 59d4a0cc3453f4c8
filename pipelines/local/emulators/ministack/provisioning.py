"""Patch of ministack's IoT: fleet provisioning takes certificate signing requests.

https://docs.aws.amazon.com/iot/latest/developerguide/fleet-provision-api.html#create-cert-csr
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ministack.services import iot

TOPIC = "$aws/certificates/create-from-csr/json"
OPERATION = "create-from-csr"


def take_signing_requests() -> None:
    """Answer CreateCertificateFromCsr over MQTT."""
    iot._parse_fleet_provisioning_topic = _parse_topic(iot._parse_fleet_provisioning_topic)
    iot._fleet_provisioning_reply = _answer(iot._fleet_provisioning_reply)


def _parse_topic(original: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda topic: (OPERATION, None) if topic == TOPIC else original(topic)


def _answer(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def reply(
        account: str,
        region: str,
        operation: str,
        template: str | None,
        payload: bytes,
        connection: dict[str, Any],
    ) -> Any:
        if operation != OPERATION:
            return await original(account, region, operation, template, payload, connection)
        return _sign(account, region, payload)

    return reply


def _sign(account: str, region: str, payload: bytes) -> tuple[str, dict[str, Any]]:
    """Sign a request; returns ``accepted`` or ``rejected``, and the answer's body."""
    from ministack.core.responses import request_scope
    from ministack.core.x509_utils import sign_certificate_request

    try:
        request = json.loads(payload)["certificateSigningRequest"]
        pem = sign_certificate_request(*iot._ensure_ca(), request)
    except Exception as error:  # noqa: BLE001  # a device may send anything; the broker goes on
        return "rejected", {
            "statusCode": 400,
            "errorCode": "InvalidCertificateSigningRequest",
            "errorMessage": str(error),
        }
    identifier, token = iot.get_certificate_id(pem), secrets.token_urlsafe(48)
    with request_scope(account, region):
        iot._certificates[identifier] = iot._certificate_record(
            identifier, pem, "PENDING_ACTIVATION"
        )
        iot._ownership_tokens[token] = {
            "certificateId": identifier,
            "expiration": time.time() + iot._OWNERSHIP_TOKEN_SECONDS,
        }
    return "accepted", {
        "certificateId": identifier,
        "certificatePem": pem,
        "certificateOwnershipToken": token,
    }
