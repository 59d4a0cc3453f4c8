"""The transport of a Greengrass component: the nucleus holds connection and certificate.

The component speaks to it over IPC
(https://docs.aws.amazon.com/greengrass/v2/developerguide/ipc-iot-core-mqtt.html). Measured on a
nucleus-lite: it sends about 7 KB and delivers 4.9 KB (larger messages are dropped silently), and
allows ten unacknowledged publishes. So messages stay at 4 KB, and eight are published at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from awscrt.exceptions import AwsCrtError
from awsiot.eventstreamrpc import EventStreamError
from awsiot.greengrasscoreipc import connect as connect_ipc
from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2
from awsiot.greengrasscoreipc.model import QOS, GreengrassCoreIPCError, UnauthorizedError

from edge.protocol.messages import COMMAND_LIMIT
from edge.transports import Handler, TransportError

logger = logging.getLogger(__name__)

AT_ONCE = 8
"""Unacknowledged publishes."""
ANSWER_SECONDS = 20.0
_FAILURES = (
    GreengrassCoreIPCError,
    EventStreamError,
    AwsCrtError,
    TimeoutError,
    OSError,
    ConnectionError,
)


class GreengrassTransport:
    """:class:`~edge.transports.Transport` for a component of a Greengrass core.

    The nucleus reconnects and resubscribes. It also restarts the component when it restarts.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._publishing = asyncio.Semaphore(AT_ONCE)
        self._client: Any = None
        self._handler: Handler | None = None

    async def connect(self, topics: list[str], handler: Handler) -> None:
        """Raises TransportError without a nucleus, or when ``accessControl`` does not allow it."""
        self._handler = handler
        try:
            self._client = GreengrassCoreIPCClientV2(client=await asyncio.to_thread(connect_ipc))
        except KeyError as error:
            raise TransportError(
                f"This is not a Greengrass component: the nucleus sets {error}, and it is not set."
            ) from error
        except _FAILURES as error:
            raise TransportError(f"The Greengrass nucleus does not answer: {error}.") from error
        for topic in topics:
            await self._subscribe(topic)

    async def publish(self, topic: str, payload: bytes) -> None:
        """Raises TransportError for a message above 4 KB, and when the nucleus refuses."""
        if len(payload) > COMMAND_LIMIT:
            raise TransportError(
                f"A message of {len(payload)} bytes to {topic} is above the {COMMAND_LIMIT} that"
                " Greengrass IPC carries safely."
            )
        # The nucleus refuses further publishes instead of queueing them.
        async with self._publishing:
            future = self._client.publish_to_iot_core_async(
                topic_name=topic, qos=QOS.AT_LEAST_ONCE, payload=payload
            )
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await asyncio.wrap_future(future)
            except _FAILURES as error:
                raise TransportError(_sentence("publish to", topic, error)) from error

    async def renew(self) -> None:
        """Do nothing: the certificate is the nucleus's.

        The component aws.greengrass.CertificateRotator renews it.
        """

    async def close(self) -> None:
        """End the subscriptions. The nucleus stays connected."""
        if self._client is not None:
            await asyncio.to_thread(self._close)

    async def _subscribe(self, topic: str) -> None:
        try:
            future, _ = self._client.subscribe_to_iot_core_async(
                topic_name=topic,
                qos=QOS.AT_LEAST_ONCE,
                on_stream_event=self._on_message,
                on_stream_error=_on_error,
                on_stream_closed=lambda: None,
            )
            await asyncio.wait_for(asyncio.wrap_future(future), ANSWER_SECONDS)
        except _FAILURES as error:
            raise TransportError(_sentence("subscribe to", topic, error)) from error

    def _close(self) -> None:
        with contextlib.suppress(*_FAILURES):
            self._client.close()

    def _on_message(self, event: Any) -> None:
        """Hand over to the event loop: the client calls this on its own threads."""
        message = event.message
        with contextlib.suppress(RuntimeError):  # the loop has closed: the process is ending
            self._loop.call_soon_threadsafe(
                self._deliver, message.topic_name, bytes(message.payload or b"")
            )

    def _deliver(self, topic: str, payload: bytes) -> None:
        if self._handler is not None:
            self._handler(topic, payload)


def _on_error(error: Exception) -> bool:
    logger.error("A subscription failed: %s", error)
    return True


def _sentence(what: str, topic: str, error: BaseException) -> str:
    if isinstance(error, UnauthorizedError):
        return f"The component's accessControl does not let it {what} {topic}."
    reason = getattr(error, "message", "") or type(error).__name__
    return f"The nucleus could not {what} {topic}: {reason}."
