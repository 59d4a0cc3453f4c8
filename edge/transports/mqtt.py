"""MQTT 5 over mutual TLS with the device's own certificate, by awscrt.

``AWS_IOT_CORE_DEFAULTS`` keeps AWS IoT Core's rates: 100 publishes/s and 100 unacknowledged
(https://docs.aws.amazon.com/general/latest/gr/iot-core.html#message-broker-limits).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

from awscrt import io, mqtt5
from awscrt.exceptions import AwsCrtError
from awsiot import mqtt5_client_builder

from edge.config import DeviceConfig
from edge.identity.credentials import CERTIFICATE, PRIVATE_KEY, Credentials
from edge.transports import Handler, TransportError

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 20.0
PUBLISH_SECONDS = 20.0
KEEP_ALIVE_SECONDS = 30
STOP_SECONDS = 5.0

# Clients that did not stop in time: kept, because awscrt 0.36 reads freed memory when a message
# arrives for a client that Python has let go of.
_unstopped: list[Any] = []


async def stopped(client: Any, event: asyncio.Event) -> None:
    """Stop an mqtt5 client and wait until it has let go of its socket; ``event``: what its stopped
    callback sets. Only then may it be forgotten.
    """
    client.stop()
    try:
        await asyncio.wait_for(event.wait(), STOP_SECONDS)
    except TimeoutError:
        _unstopped.append(client)


class MqttTransport:
    """:class:`~edge.transports.Transport` for a device with a certificate."""

    def __init__(
        self,
        config: DeviceConfig,
        *,
        will: tuple[str, bytes],
        bootstrap: io.ClientBootstrap | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._handler: Handler | None = None
        self._topics: list[str] = []
        self._connected = asyncio.Event()
        self._stopped = asyncio.Event()
        self._failure = ""
        self._config, self._will, self._bootstrap = config, will, bootstrap
        self._client = self._build(config.certificate, config.private_key)

    async def connect(self, topics: list[str], handler: Handler) -> None:
        """Raises TransportError when the broker refuses or cannot be reached in time."""
        self._topics, self._handler = topics, handler
        try:
            await self._up()
        except (
            BaseException
        ):  # also refused subscriptions and an interruption: what is not used is not left connected
            await self.close()
            raise

    async def _up(self) -> None:
        self._client.start()
        try:
            await asyncio.wait_for(self._connected.wait(), CONNECT_SECONDS)
        except TimeoutError as error:
            raise TransportError(
                f"No connection to the IoT endpoint within {CONNECT_SECONDS:.0f} s: {self._failure or 'no answer'}."
            ) from error
        await self._subscribe()

    async def publish(self, topic: str, payload: bytes) -> None:
        """At least once (QoS 1). Raises TransportError when the broker refuses or does not
        acknowledge.
        """
        packet = mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE)
        try:
            done = await asyncio.wait_for(
                asyncio.wrap_future(self._client.publish(packet)), PUBLISH_SECONDS
            )
        except (AwsCrtError, TimeoutError) as error:
            raise TransportError(f"Publishing to {topic} failed: {error}.") from error
        if (
            done.puback is not None
            and done.puback.reason_code >= mqtt5.PubackReasonCode.UNSPECIFIED_ERROR
        ):
            raise TransportError(
                f"The broker refused a message to {topic}: {done.puback.reason_code.name}."
            )

    async def renew(self) -> None:
        """By fleet provisioning with the certificate in use. The new pair counts once the broker
        has taken it.
        """
        from edge.transports.provisioning import obtain

        config = self._config
        credentials = Credentials(Path(config.home) / "credentials")
        issued = await obtain(
            self._client, config.provisioning_template, config.device, config.fleet
        )
        pair = credentials.store(issued.identifier[:16], issued.key, issued.certificate)
        try:
            await self._reconnect(str(pair / CERTIFICATE), str(pair / PRIVATE_KEY))
        except TransportError as error:
            await self._reconnect(config.certificate, config.private_key)
            raise TransportError(
                f"The new certificate was not taken, the old one stays: {error}"
            ) from error
        credentials.use(pair)

    async def _reconnect(self, certificate: str, private_key: str) -> None:
        await self.close()
        self._connected.clear()
        self._stopped.clear()
        self._client = self._build(certificate, private_key)
        await self._up()

    async def close(self) -> None:
        """Disconnect; waits until the client has let go of its socket."""
        await stopped(self._client, self._stopped)

    async def _subscribe(self) -> None:
        packet = mqtt5.SubscribePacket(
            [mqtt5.Subscription(topic, mqtt5.QoS.AT_LEAST_ONCE) for topic in self._topics]
        )
        try:
            answer = await asyncio.wait_for(
                asyncio.wrap_future(self._client.subscribe(packet)), CONNECT_SECONDS
            )
        except (AwsCrtError, TimeoutError) as error:
            raise TransportError(f"Subscribing failed: {error}.") from error
        refused = [
            t
            for t, code in zip(self._topics, answer.reason_codes, strict=True)
            if code >= mqtt5.SubackReasonCode.UNSPECIFIED_ERROR
        ]
        if refused:
            raise TransportError(
                f"The IoT policy does not allow this device to subscribe to {refused[0]}."
            )

    async def _resubscribe(self) -> None:
        """After a lost connection the broker may have lost the session too."""
        try:
            await self._subscribe()
        except TransportError as error:
            logger.warning("%s", error)

    def _build(self, certificate: str, private_key: str) -> Any:
        config = self._config
        return mqtt5_client_builder.mtls_from_path(
            endpoint=config.endpoint,
            port=config.port,
            client_id=config.device,
            cert_filepath=certificate,
            pri_key_filepath=private_key,
            ca_filepath=config.ca,
            client_bootstrap=self._bootstrap,
            keep_alive_interval_sec=KEEP_ALIVE_SECONDS,
            min_reconnect_delay_ms=250,
            max_reconnect_delay_ms=30_000,
            extended_validation_and_flow_control_options=mqtt5.ExtendedValidationAndFlowControlOptions.AWS_IOT_CORE_DEFAULTS,
            will=mqtt5.PublishPacket(
                topic=self._will[0], payload=self._will[1], qos=mqtt5.QoS.AT_LEAST_ONCE
            ),
            on_publish_received=self._on_publish,
            on_lifecycle_connection_success=self._on_connected,
            on_lifecycle_connection_failure=self._on_failure,
            on_lifecycle_stopped=self._on_stopped,
        )

    # Called on awscrt's threads: hand over to the event loop, nothing else.

    def _on_publish(self, data: Any) -> None:
        packet = data.publish_packet
        self._call(self._deliver, packet.topic, bytes(packet.payload or b""))

    def _on_connected(self, data: Any) -> None:
        self._call(self._mark_connected)

    def _on_failure(self, data: Any) -> None:
        self._failure = str(data.exception)

    def _on_stopped(self, data: Any) -> None:
        self._call(self._stopped.set)

    def _call(self, function: Any, *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: the process is ending
            self._loop.call_soon_threadsafe(function, *args)

    def _mark_connected(self) -> None:
        if self._connected.is_set():
            self._background = asyncio.ensure_future(self._resubscribe())
        self._connected.set()

    def _deliver(self, topic: str, payload: bytes) -> None:
        if self._handler is not None:
            self._handler(topic, payload)
