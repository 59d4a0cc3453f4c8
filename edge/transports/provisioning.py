"""Fleet provisioning, on the device: a first certificate by a claim, and renewals.

``mledgeops-enrol CLAIM`` runs once on a new device.
https://docs.aws.amazon.com/iot/latest/developerguide/provision-wo-cert.html
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from awscrt.exceptions import AwsCrtError
from awscrt.mqtt_request_response import ClientOptions
from awsiot import V2ServiceException, iotidentity

from edge.config import DeviceConfig, HeartbeatSeconds, Port, read_struct
from edge.errors import MLEdgeOpsError
from edge.files import write_atomically
from edge.identity.credentials import (
    CERTIFICATE,
    PRIVATE_KEY,
    Credentials,
    is_whole,
    key_and_request,
)
from edge.protocol.names import Name
from edge.transports import TransportError
from edge.transports.mqtt_connection import Endpoint, MqttConnection

ANSWER_SECONDS = 20


class ProvisioningClaim(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a new device is delivered with, so that it can get its own certificate."""

    fleet: Name
    device: Name
    endpoint: str
    port: Port = 8883
    certificate: str
    """The fleet's claim certificate, a PEM file as the next two."""
    private_key: str
    ca: str
    template: str
    """The fleet provisioning template."""
    token: str
    """Made by the operator for this device; valid once."""
    home: str
    heartbeat_seconds: HeartbeatSeconds = 30.0


async def obtain(
    client: Any,
    credentials: Credentials,
    template: str,
    device: str,
    fleet: str,
    token: str = "",
) -> Path:
    """Have a new key certified and attached to the device's thing; returns the stored pair.

    Args:
        client: A connected mqtt5 client.
        credentials: Where the pair is stored.
        template: The fleet provisioning template.
        device: The thing's name.
        fleet: The device's fleet.
        token: The claim's token; empty for a renewal.

    Raises:
        TransportError: AWS IoT or the fleet's pre-provisioning hook refused.

    """
    key, request = key_and_request(device)
    options = ClientOptions(
        max_request_response_subscriptions=4,
        max_streaming_subscriptions=1,
        operation_timeout_in_seconds=ANSWER_SECONDS,
    )
    identity = iotidentity.IotIdentityClientV2(client, options)
    # Two calls: the first certifies the key, the second attaches the certificate to the thing. It
    # is useless in between, and AWS IoT deletes it when the second call does not come.
    try:
        made = await asyncio.wrap_future(
            identity.create_certificate_from_csr(
                iotidentity.CreateCertificateFromCsrRequest(certificate_signing_request=request)
            )
        )
        # Stored in between: registering uses up the token, and a power cut behind it must not take
        # the only key of the certificate.
        pair = credentials.store(made.certificate_id[:16], key, made.certificate_pem)
        await asyncio.wrap_future(
            identity.register_thing(
                iotidentity.RegisterThingRequest(
                    template_name=template,
                    certificate_ownership_token=made.certificate_ownership_token,
                    parameters={"SerialNumber": device, "Fleet": fleet, "Token": token},
                )
            )
        )
    except V2ServiceException as error:
        credentials.drop_unused()
        reason = getattr(error.modeled_error, "error_message", "") or str(error)
        raise TransportError(f"AWS IoT refused a certificate for {device}: {reason}.") from error
    except AwsCrtError as error:
        raise TransportError(f"No certificate for {device}: {error}.") from error
    return pair


async def enrol(claim: ProvisioningClaim) -> Path:
    """Get the device its certificate, write its configuration, and return that file.

    Raises:
        TransportError: The device was refused; nothing is written.

    """
    home = Path(claim.home)
    credentials = Credentials(home / "credentials")
    file = home / "device.json"
    # The file comes last: with it, the enrolment was complete, and a claim works once.
    pair = None if file.is_file() else await _stored_before(claim, credentials)
    if pair is None:
        async with _connected(claim) as client:
            pair = await obtain(
                client, credentials, claim.template, claim.device, claim.fleet, claim.token
            )
    credentials.use(pair)
    config = DeviceConfig(
        fleet=claim.fleet,
        device=claim.device,
        endpoint=claim.endpoint,
        port=claim.port,
        certificate=str(credentials.certificate),
        private_key=str(credentials.private_key),
        ca=claim.ca,
        home=claim.home,
        heartbeat_seconds=claim.heartbeat_seconds,
        provisioning_template=claim.template,
    )
    # The operator delivers trust.json beside the CA, outside the home that enrolment fills.
    trust = Path(claim.ca).with_name(config.trust_file.name)
    if trust.is_file() and trust != config.trust_file:
        write_atomically(config.trust_file, trust.read_bytes(), durable=True)
    write_atomically(file, msgspec.json.format(msgspec.json.encode(config)), durable=True)
    return file


async def _stored_before(claim: ProvisioningClaim, credentials: Credentials) -> Path | None:
    """Return the pair of an enrolment that a power cut ended, if the broker accepts it."""
    for pair in filter(is_whole, credentials.pairs()):
        endpoint = Endpoint(
            host=claim.endpoint,
            port=claim.port,
            client_id=claim.device,
            certificate=str(pair / CERTIFICATE),
            private_key=str(pair / PRIVATE_KEY),
            ca=claim.ca,
        )
        connection = MqttConnection(endpoint)
        try:
            await connection.open()
            return pair
        except TransportError:
            continue  # it was not registered any more
        finally:
            await connection.close()
    return None


@asynccontextmanager
async def _connected(claim: ProvisioningClaim) -> AsyncIterator[Any]:
    """Connect with the claim certificate.

    The claims' IoT policy allows client ids of this form only; the random part lets a device try
    again before the broker has noticed that its last connection is gone.
    """
    connection = MqttConnection(
        Endpoint(
            host=claim.endpoint,
            port=claim.port,
            client_id=f"claim-{claim.device}-{secrets.token_hex(4)}",
            certificate=claim.certificate,
            private_key=claim.private_key,
            ca=claim.ca,
        )
    )
    try:
        await connection.open()
        yield connection.client
    finally:
        await connection.close()


def main() -> int:
    """``mledgeops-enrol CLAIM``: exit 2 for a bad claim file, 1 when the device is refused."""
    parser = argparse.ArgumentParser(
        prog="mledgeops-enrol", description="Get this device a certificate of its own."
    )
    parser.add_argument(
        "claim", type=Path, help="the claim file that the operator made for this device"
    )
    options = parser.parse_args()
    try:
        claim = read_struct(options.claim, ProvisioningClaim, "claim")
        file = asyncio.run(enrol(claim))
    except MLEdgeOpsError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"enrolled {claim.device}; start it with: mledgeops-agent {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
