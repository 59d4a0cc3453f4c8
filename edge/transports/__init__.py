"""How a device talks to the cloud: the port, and its implementations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Handler = Callable[[str, bytes], None]


class TransportError(Exception):
    """A connection that could not be made or kept, with the reason in one sentence."""


class Transport(Protocol):
    """Port: publish to own topics, receive what was subscribed. Calls come on the agent's event
    loop.
    """

    async def connect(self, topics: list[str], handler: Handler) -> None:
        """Connect, subscribe, and from then on call ``handler(topic, payload)``."""

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish at least once; returns when the broker has it."""

    async def renew(self) -> None:
        """Replace the device's certificate and connect with the new one; raises TransportError, and
        goes on with the old, when it cannot.
        """

    async def close(self) -> None:
        """Disconnect. Nothing is delivered afterwards."""
