"""The transport of a device with its own certificate: MQTT 5 to AWS IoT Core."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

from awscrt import io, mqtt5
from awscrt.exceptions import AwsCrtError

from edge.config import DeviceConfig
from edge.identity.credentials import CERTIFICATE, PRIVATE_KEY, Credentials, credentials_of
from edge.transports import Handler, TransportError
from edge.transports.mqtt_connection import (
    Endpoint,
    MqttConnection,
    publish_packet,
)
from edge.transports.provisioning import obtain

logger = logging.getLogger(__name__)

PUBLISH_SECONDS = 20.0
SUBSCRIBE_SECONDS = 20.0


class MqttTransport:
    """:class:`~edge.transports.Transport` for a device with a certificate.

    Args:
        config: The device.
        will: Topic and payload that the broker publishes when the connection is lost.
        bootstrap: Network threads to share between several devices in one process.

    """

    def __init__(
        self,
        config: DeviceConfig,
        *,
        will: tuple[str, bytes],
        bootstrap: io.ClientBootstrap | None = None,
    ) -> None:
        self._handler: Handler | None = None
        self._topics: list[str] = []
        self._resubscription: asyncio.Future[None] | None = None
        self._config, self._will, self._bootstrap = config, will, bootstrap
        self._connection = self._connection_with(config.certificate, config.private_key)

    async def connect(self, topics: list[str], handler: Handler) -> None:
        """Raises TransportError when the broker refuses or cannot be reached in time."""
        self._topics, self._handler = topics, handler
        try:
            await self._open()
        except BaseException:  # also a refused subscription and a cancellation
            # A client must not be forgotten while it is connected: see stop_client.
            await self.close()
            raise
        if (credentials := credentials_of(self._config)) is not None:
            with contextlib.suppress(OSError):
                credentials.settle()

    async def publish(self, topic: str, payload: bytes) -> None:
        """Raises TransportError when the broker refuses, or does not acknowledge in time."""
        packet = publish_packet(topic, payload)
        try:
            # Not wait_for: before Python 3.12 it loses a cancellation that meets the answer.
            async with asyncio.timeout(PUBLISH_SECONDS):
                done = await asyncio.wrap_future(self._connection.client.publish(packet))
        except (AwsCrtError, TimeoutError) as error:
            raise TransportError(f"Publishing to {topic} failed: {error}.") from error
        refused = mqtt5.PubackReasonCode.UNSPECIFIED_ERROR
        if done.puback is not None and done.puback.reason_code >= refused:
            raise TransportError(
                f"The broker refused a message to {topic}: {done.puback.reason_code.name}."
            )

    async def renew(self) -> None:
        """Renew by fleet provisioning, with the certificate in use.

        The new pair replaces the old one only once the broker has accepted it.
        """
        config = self._config
        credentials = Credentials(Path(config.home) / "credentials")
        # In a folder of its own: the pair in use stays as it is until the broker took the new one.
        pair = await obtain(
            self._connection.client,
            credentials,
            config.provisioning_template,
            config.device,
            config.fleet,
        )
        try:
            await self._reconnect(str(pair / CERTIFICATE), str(pair / PRIVATE_KEY))
        except TransportError as error:
            await self._reconnect(config.certificate, config.private_key)
            raise TransportError(
                f"The new certificate was not accepted, the old one stays: {error}"
            ) from error
        credentials.use(pair)

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.close()

    async def _open(self) -> None:
        await self._connection.open()
        await _subscribe(self._connection.client, self._topics)

    async def _reconnect(self, certificate: str, private_key: str) -> None:
        await self.close()
        self._connection = self._connection_with(certificate, private_key)
        await self._open()

    def _connection_with(self, certificate: str, private_key: str) -> MqttConnection:
        config = self._config
        return MqttConnection(
            Endpoint(
                host=config.endpoint,
                port=config.port,
                client_id=config.device,
                certificate=certificate,
                private_key=private_key,
                ca=config.ca,
            ),
            on_message=self._deliver,
            on_reconnect=self._start_resubscription,
            will=self._will,
            bootstrap=self._bootstrap,
        )

    def _start_resubscription(self) -> None:
        """Subscribe again: the broker may have lost the session with the connection."""
        self._resubscription = asyncio.ensure_future(
            _resubscribe(self._connection.client, self._topics)
        )

    def _deliver(self, topic: str, payload: bytes) -> None:
        if self._handler is not None:
            self._handler(topic, payload)


async def _subscribe(client: Any, topics: list[str]) -> None:
    packet = mqtt5.SubscribePacket(
        [mqtt5.Subscription(topic, mqtt5.QoS.AT_LEAST_ONCE) for topic in topics]
    )
    try:
        async with asyncio.timeout(SUBSCRIBE_SECONDS):
            answer = await asyncio.wrap_future(client.subscribe(packet))
    except (AwsCrtError, TimeoutError) as error:
        raise TransportError(f"Subscribing failed: {error}.") from error
    # A refused subscription is no error of the call: the broker answers each topic with a code.
    for topic, code in zip(topics, answer.reason_codes, strict=True):
        if code >= mqtt5.SubackReasonCode.UNSPECIFIED_ERROR:
            raise TransportError(
                f"The IoT policy does not allow this device to subscribe to {topic}."
            )


async def _resubscribe(client: Any, topics: list[str]) -> None:
    try:
        await _subscribe(client, topics)
    except TransportError as error:
        logger.warning("%s", error)
