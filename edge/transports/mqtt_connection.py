"""One MQTT 5 connection over mutual TLS, from start to stop, by awscrt.

``AWS_IOT_CORE_DEFAULTS`` keeps AWS IoT Core's rates: 100 publishes/s and 100 unacknowledged
(https://docs.aws.amazon.com/general/latest/gr/iot-core.html#message-broker-limits).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
from awscrt import io, mqtt5
from awsiot import mqtt5_client_builder

from edge.transports import Handler, TransportError

CONNECT_SECONDS = 20.0
KEEP_ALIVE_SECONDS = 30
"""The broker sends the last will after one and a half times this without a sign of life."""
STOP_SECONDS = 5.0
_LIMITS = mqtt5.ExtendedValidationAndFlowControlOptions.AWS_IOT_CORE_DEFAULTS

# Clients that did not stop in time. They are kept, because awscrt 0.36 reads freed memory when a
# message arrives for a client that Python has garbage-collected.
_unstopped: list[Any] = []


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a client connects, and as whom. Files are PEM."""

    host: str
    port: int
    client_id: str
    certificate: str
    private_key: str
    ca: str


async def stop_client(client: Any, stopped: asyncio.Event) -> None:
    """Stop an mqtt5 client, and wait until it has released its socket.

    Only then may the client be forgotten: awscrt crashes the process when a message arrives for a
    client that was garbage-collected while connected.

    Args:
        client: The mqtt5 client.
        stopped: Set by the client's stopped callback.

    """
    client.stop()
    try:
        await asyncio.wait_for(stopped.wait(), STOP_SECONDS)
    except TimeoutError:
        _unstopped.append(client)


class MqttConnection:
    """An mqtt5 client that calls back on the event loop. Make a new one for a new certificate.

    Args:
        endpoint: Where to connect, and as whom.
        on_message: Receives each message.
        on_reconnect: Called when a lost connection is back.
        will: Topic and payload of the last will.
        bootstrap: Network threads to share between connections.

    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        on_message: Handler | None = None,
        on_reconnect: Callable[[], None] | None = None,
        will: tuple[str, bytes] | None = None,
        bootstrap: io.ClientBootstrap | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_message, self._on_reconnect = on_message, on_reconnect
        self._connected, self._stopped = asyncio.Event(), asyncio.Event()
        self._failure = ""
        self.client = mqtt5_client_builder.mtls_from_path(
            endpoint=endpoint.host,
            port=endpoint.port,
            client_id=endpoint.client_id,
            cert_filepath=endpoint.certificate,
            pri_key_filepath=endpoint.private_key,
            ca_filepath=endpoint.ca,
            client_bootstrap=bootstrap,
            keep_alive_interval_sec=KEEP_ALIVE_SECONDS,
            # The client reconnects by itself; a fleet must not come back all at once.
            min_reconnect_delay_ms=250,
            max_reconnect_delay_ms=30_000,
            extended_validation_and_flow_control_options=_LIMITS,
            will=publish_packet(*will) if will is not None else None,
            on_publish_received=self._received,
            on_lifecycle_connection_success=lambda _: self._call(self._succeeded),
            on_lifecycle_connection_failure=self._failed,
            on_lifecycle_stopped=lambda _: self._call(self._stopped.set),
        )

    async def open(self) -> None:
        """Connect. Raises TransportError when there is no connection in time.

        The client goes on trying: call :meth:`close` in any case.
        """
        # start() returns at once; callbacks tell of success and of each failed attempt.
        self.client.start()
        try:
            await asyncio.wait_for(self._connected.wait(), CONNECT_SECONDS)
        except TimeoutError as error:
            raise TransportError(
                f"No connection to the IoT endpoint within {CONNECT_SECONDS:.0f} s:"
                f" {self._failure or 'no answer'}."
            ) from error

    async def close(self) -> None:
        """Disconnect, and wait until the client has released its socket."""
        await stop_client(self.client, self._stopped)

    # awscrt calls these on its own threads: they only hand over to the event loop.

    def _received(self, data: Any) -> None:
        packet = data.publish_packet
        if self._on_message is not None:
            self._call(self._on_message, packet.topic, bytes(packet.payload or b""))

    def _failed(self, data: Any) -> None:
        self._failure = str(data.exception)

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: the process is ending
            self._loop.call_soon_threadsafe(function, *args)

    def _succeeded(self) -> None:
        if self._connected.is_set() and self._on_reconnect is not None:
            self._on_reconnect()
        self._connected.set()


def publish_packet(topic: str, payload: bytes) -> Any:
    """Build a packet that the broker has to acknowledge (QoS 1)."""
    return mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE)
