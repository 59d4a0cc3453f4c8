"""An MQTT transport in memory."""

from __future__ import annotations

import asyncio

from edge.transports import Handler


class MemoryTransport:
    """Transport that keeps what was published and lets a test deliver messages."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []
        self.handler: Handler | None = None
        self.topics: list[str] = []
        self.closed = False
        self.renewed = 0

    async def connect(self, topics: list[str], handler: Handler) -> None:
        self.topics, self.handler = topics, handler

    async def publish(self, topic: str, payload: bytes) -> None:
        self.published.append((topic, payload))

    def deliver(self, topic: str, payload: bytes) -> None:
        """A message from the broker: to the handler if its topic was subscribed."""
        if self.handler is not None and topic in self.topics and not self.closed:
            self.handler(topic, payload)

    async def renew(self) -> None:
        self.renewed += 1

    async def close(self) -> None:
        self.closed = True

    async def until(self, count: int, suffix: str) -> list[bytes]:
        """Wait until so many messages went to topics that end so."""
        for _ in range(500):
            found = [payload for topic, payload in self.published if topic.endswith(suffix)]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)
        raise AssertionError(f"only {len(found)} messages to {suffix}")
