"""How a device talks to the cloud: the port :class:`Transport` and its implementations.

The agent and the enrolment import it; of the implementations only entry points do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edge.errors import MLEdgeOpsError

Handler = Callable[[str, bytes], None]
"""Receives topic and payload of a message. Must not block."""


class TransportError(MLEdgeOpsError):
    """A connection that could not be made or kept."""

    exit_code = 1
    code = "transport"


class Transport(Protocol):
    """Port: publishes to a device's own topics, and delivers what it subscribed to.

    All calls, and those of the handler, happen on the agent's event loop.
    """

    async def connect(self, topics: list[str], handler: Handler) -> None:
        """Connect, subscribe, and from then on call ``handler(topic, payload)``."""

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish at least once; returns when the broker has acknowledged."""

    async def renew(self) -> None:
        """Replace the device's certificate and reconnect with the new one.

        Raises:
            TransportError: The old certificate stays in use.

        """

    async def close(self) -> None:
        """Disconnect. Nothing is delivered afterwards."""
