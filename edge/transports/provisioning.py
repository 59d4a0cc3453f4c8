"""Fleet provisioning, the device's side: a certificate of its own by the claim certificate, and a
successor by its own.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from awscrt import mqtt5
from awscrt.exceptions import AwsCrtError
from awscrt.mqtt_request_response import ClientOptions
from awsiot import V2ServiceException, iotidentity, mqtt5_client_builder

from edge.config import DeviceConfig, read_struct
from edge.identity.credentials import Credentials, key_and_request
from edge.protocol.messages import Name
from edge.transports import TransportError
from edge.transports.mqtt import stopped

CONNECT_SECONDS = 20.0
ANSWER_SECONDS = 20


class Claim(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a new device leaves the factory with: the fleet's claim certificate, and the token the
    operator made for it.
    """

    fleet: Name
    device: Name
    endpoint: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8883
    certificate: str
    private_key: str
    ca: str
    template: str
    token: str
    home: str
    heartbeat_seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 30.0


@dataclass(frozen=True)
class Issued:
    """A certificate that AWS IoT has made a device's own."""

    identifier: str
    certificate: str
    key: bytes


async def obtain(client: Any, template: str, device: str, fleet: str, token: str = "") -> Issued:
    """Have a new key certified and attached to the device's thing. ``client``: a connected mqtt5
    client.

    Raises TransportError when AWS IoT or the fleet's pre-provisioning hook refuses.
    """
    key, request = key_and_request(device)
    identity = iotidentity.IotIdentityClientV2(
        client,
        ClientOptions(
            max_request_response_subscriptions=4,
            max_streaming_subscriptions=1,
            operation_timeout_in_seconds=ANSWER_SECONDS,
        ),
    )
    try:
        made = await asyncio.wrap_future(
            identity.create_certificate_from_csr(
                iotidentity.CreateCertificateFromCsrRequest(certificate_signing_request=request)
            )
        )
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
        said = getattr(error.modeled_error, "error_message", "") or str(error)
        raise TransportError(f"AWS IoT refused a certificate for {device}: {said}.") from error
    except AwsCrtError as error:
        raise TransportError(f"No certificate for {device}: {error}.") from error
    return Issued(made.certificate_id, made.certificate_pem, key)


async def enrol(claim: Claim) -> Path:
    """Get the device its certificate and write its configuration; returns that file. Nothing is
    written when it is refused.
    """
    home = Path(claim.home)
    credentials = Credentials(home / "credentials")
    async with _connected(claim) as client:
        issued = await obtain(client, claim.template, claim.device, claim.fleet, claim.token)
    credentials.use(credentials.store(issued.identifier[:16], issued.key, issued.certificate))
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
    beside = Path(claim.ca).with_name(config.trust_file.name)
    if beside.is_file() and beside != config.trust_file:
        config.trust_file.write_bytes(beside.read_bytes())
    file = home / "device.json"
    file.write_bytes(msgspec.json.format(msgspec.json.encode(config)))
    return file


@asynccontextmanager
async def _connected(claim: Claim) -> AsyncIterator[Any]:
    """A connection with the claim certificate. The policy of claims asks for this form of client
    id.
    """
    loop, up, down, failures = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event(), []
    client = mqtt5_client_builder.mtls_from_path(
        endpoint=claim.endpoint,
        port=claim.port,
        client_id=f"claim-{claim.device}-{secrets.token_hex(4)}",
        cert_filepath=claim.certificate,
        pri_key_filepath=claim.private_key,
        ca_filepath=claim.ca,
        extended_validation_and_flow_control_options=mqtt5.ExtendedValidationAndFlowControlOptions.AWS_IOT_CORE_DEFAULTS,
        on_lifecycle_connection_success=lambda _: loop.call_soon_threadsafe(up.set),
        on_lifecycle_connection_failure=lambda data: failures.append(str(data.exception)),
        on_lifecycle_stopped=lambda _: loop.call_soon_threadsafe(down.set),
    )
    client.start()
    try:
        await asyncio.wait_for(up.wait(), CONNECT_SECONDS)
        yield client
    except TimeoutError as error:
        raise TransportError(
            f"No connection to {claim.endpoint}:{claim.port} with the claim certificate: {failures[-1:] or 'no answer'}."
        ) from error
    finally:
        await stopped(client, down)


def main() -> int:
    """``mledgeops-enrol CLAIM``: exit 2 for a bad claim file, 1 when the device is refused."""
    parser = argparse.ArgumentParser(
        prog="mledgeops-enrol", description="Get this device a certificate of its own."
    )
    parser.add_argument(
        "claim", type=Path, help="the claim file that the operator made for this device"
    )
    try:
        claim = read_struct(parser.parse_args().claim, Claim, "claim")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        file = asyncio.run(enrol(claim))
    except TransportError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"enrolled {claim.device}; start it with: mledgeops-agent {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
