"""The contract of a device's transport: publish to own topics, receive what was subscribed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from fakes.nucleus import core
from fakes.transport import MemoryTransport
from support.devices import device

from edge.agent.heartbeat import last_will
from edge.greengrass.recipe import agent_recipe, encode
from edge.transports import Transport
from edge.transports.greengrass import GreengrassTransport
from edge.transports.mqtt import MqttTransport
from fl_runtime.run.aws import client
from pipelines.local.cloud import LocalCloud


@dataclass
class Link:
    """A transport that is not connected yet, and the broker's side of it."""

    transport: Transport
    own: str
    """The device's topics begin so."""
    deliver: Callable[[str, bytes], Awaitable[None]]
    arrived: Callable[[], Awaitable[list[tuple[str, bytes]]]]
    """What the broker has taken from the device."""


async def eventually(true: Callable[[], Awaitable[bool]] | Callable[[], bool]) -> None:
    for _ in range(200):
        found = true()
        if await found if asyncio.iscoroutine(found) else found:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not happen in time")


class TransportContract:
    """What every transport promises. Subclasses give ``link()``, a context manager."""

    def link(self) -> contextlib.AbstractAsyncContextManager[Link]:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def surroundings(
        self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.folder, self.monkeypatch = tmp_path, monkeypatch

    def test_what_was_subscribed_is_received_in_order(self) -> None:
        async def main() -> list[tuple[str, bytes]]:
            heard: list[tuple[str, bytes]] = []
            async with self.link() as link:
                topic = f"{link.own}/command"
                await link.transport.connect([topic], lambda *message: heard.append(message))
                for payload in (b"train", b"evaluate"):
                    await link.deliver(topic, payload)
                await eventually(lambda: len(heard) >= 2)
                assert {name for name, _ in heard} == {topic}
                await link.transport.close()
            return heard

        assert [payload for _, payload in asyncio.run(main())] == [b"train", b"evaluate"]

    def test_a_topic_that_was_not_subscribed_is_not_received(self) -> None:
        async def main() -> list[bytes]:
            heard: list[bytes] = []
            async with self.link() as link:
                topic = f"{link.own}/command"
                await link.transport.connect([topic], lambda _, payload: heard.append(payload))
                await link.deliver("fl/another/device/command", b"not mine")
                await link.deliver(topic, b"mine")
                await eventually(lambda: bool(heard))
                await link.transport.close()
            return heard

        assert asyncio.run(main()) == [b"mine"]

    def test_a_message_is_with_the_broker_when_publish_returns(self) -> None:
        async def main() -> None:
            async with self.link() as link:
                await link.transport.connect([f"{link.own}/command"], lambda *_: None)
                await link.transport.publish(f"{link.own}/heartbeat", b'{"body": "idle"}')

                async def there() -> bool:
                    return (f"{link.own}/heartbeat", b'{"body": "idle"}') in await link.arrived()

                await eventually(there)
                await link.transport.close()

        asyncio.run(main())

    def test_nothing_is_delivered_after_close(self) -> None:
        async def main() -> list[bytes]:
            heard: list[bytes] = []
            async with self.link() as link:
                topic = f"{link.own}/command"
                await link.transport.connect([topic], lambda _, payload: heard.append(payload))
                await link.transport.close()
                await link.deliver(topic, b"too late")
                await asyncio.sleep(0.1)
            return heard

        assert asyncio.run(main()) == []


class TestMemoryTransport(TransportContract):
    @contextlib.asynccontextmanager
    async def link(self) -> AsyncIterator[Link]:
        transport = MemoryTransport()

        async def deliver(topic: str, payload: bytes) -> None:
            transport.deliver(topic, payload)

        async def arrived() -> list[tuple[str, bytes]]:
            return transport.published

        yield Link(transport, "fl/f/press-1", deliver, arrived)


class TestGreengrassTransport(TransportContract):
    """By AWS's own client library, to a nucleus that speaks its protocol."""

    @contextlib.asynccontextmanager
    async def link(self) -> AsyncIterator[Link]:
        recipe = json.loads(encode(agent_recipe("0.1.0", "s3://bucket/components")))
        broker = MemoryTransport()
        async with core(self.folder, broker, recipe) as (nucleus, socket):
            for name, value in nucleus.environment(socket).items():
                self.monkeypatch.setenv(name, value)

            async def deliver(topic: str, payload: bytes) -> None:
                nucleus.deliver(topic, payload)

            async def arrived() -> list[tuple[str, bytes]]:
                return broker.published

            transport = GreengrassTransport()
            try:
                yield Link(transport, "fl/f/press-1", deliver, arrived)
            finally:
                await transport.close()


class TestMqttTransport(TransportContract):
    """By MQTT 5 over mutual TLS, to the local cloud's broker and its rules."""

    @pytest.fixture(autouse=True)
    def local_cloud(self, reached: LocalCloud) -> None:
        self.cloud = reached

    @contextlib.asynccontextmanager
    async def link(self) -> AsyncIterator[Link]:
        fleet = f"contract-{uuid.uuid4().hex[:8]}"
        config = await asyncio.to_thread(device, self.cloud, 0, fleet)
        broker, dynamodb = client("iot-data"), client("dynamodb")
        row = {
            "TableName": self.cloud.deployment.devices_table,
            "Key": {"fleet": {"S": fleet}, "device": {"S": config.device}},
        }

        async def deliver(topic: str, payload: bytes) -> None:
            await asyncio.to_thread(broker.publish, topic=topic, qos=1, payload=payload)

        async def arrived() -> list[tuple[str, bytes]]:
            item = (await asyncio.to_thread(dynamodb.get_item, **row)).get("Item")
            if item is None:
                return []
            body = json.dumps({"body": item["body"]["S"]}).encode()
            return [(f"fl/{fleet}/{config.device}/heartbeat", body)]

        transport = MqttTransport(config, will=last_will(config))
        try:
            yield Link(transport, f"fl/{fleet}/{config.device}", deliver, arrived)
        finally:
            await transport.close()
