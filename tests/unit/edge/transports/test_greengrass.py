"""Messages by way of the nucleus: AWS's own client, accessControl, and IPC limits."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fakes.nucleus import Nucleus, core
from fakes.transport import MemoryTransport
from support.paths import ROOT

from edge.greengrass.recipe import NUCLEUS_CONFIGURATION, agent_recipe, encode
from edge.transports import TransportError
from edge.transports.greengrass import GreengrassTransport

RECIPE = json.loads(encode(agent_recipe("0.1.0", "s3://bucket/components")))


def with_component(
    folder: Path, monkeypatch: pytest.MonkeyPatch, work: Any
) -> tuple[Nucleus, MemoryTransport]:
    async def main() -> tuple[Nucleus, MemoryTransport]:
        broker = MemoryTransport()
        async with core(folder, broker, RECIPE) as (nucleus, socket):
            for name, value in nucleus.environment(socket).items():
                monkeypatch.setenv(name, value)
            transport = GreengrassTransport()
            try:
                await work(transport, nucleus)
            finally:
                await transport.close()
        return nucleus, broker

    return asyncio.run(main())


def test_messages_pass_both_ways_by_awss_own_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list = []

    async def work(transport: GreengrassTransport, nucleus: Nucleus) -> None:
        await transport.connect(
            ["fl/f/press-1/command"], lambda topic, payload: heard.append((topic, payload))
        )
        await transport.publish("fl/f/press-1/heartbeat", b'{"body": "idle"}')
        nucleus.deliver("fl/f/press-1/command", b"train")
        nucleus.deliver("fl/f/press-1/command", b"x" * 5000)
        nucleus.deliver("fl/f/press-1/command", b"evaluate")
        for _ in range(100):
            await asyncio.sleep(0.02)
            if len(heard) == 2:
                return

    nucleus, broker = with_component(tmp_path, monkeypatch, work)
    assert heard == [("fl/f/press-1/command", b"train"), ("fl/f/press-1/command", b"evaluate")]
    assert broker.published == [("fl/f/press-1/heartbeat", b'{"body": "idle"}')]
    assert nucleus.dropped == 1


def test_what_the_recipe_does_not_allow_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(transport: GreengrassTransport, _: Nucleus) -> None:
        with pytest.raises(
            TransportError, match="accessControl does not let it subscribe to fl/f/press-2/command"
        ):
            await transport.connect(["fl/f/press-2/command"], lambda *_: None)
        with pytest.raises(
            TransportError, match="accessControl does not let it publish to fl/f/press-2/reply"
        ):
            await transport.publish("fl/f/press-2/reply", b"{}")
        await transport.publish("fl/f/press-1/reply", b"{}")

    _, broker = with_component(tmp_path, monkeypatch, work)
    assert [topic for topic, _ in broker.published] == ["fl/f/press-1/reply"]


def test_long_messages_never_reach_the_nucleus_and_a_burst_stays_below_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(transport: GreengrassTransport, _: Nucleus) -> None:
        await transport.connect([], lambda *_: None)
        with pytest.raises(TransportError, match="4097 bytes"):
            await transport.publish("fl/f/press-1/reply", b"x" * 4097)
        await asyncio.gather(
            *(transport.publish("fl/f/press-1/reply", b"x" * 4096) for _ in range(60))
        )

    nucleus, broker = with_component(tmp_path, monkeypatch, work)
    assert len(broker.published) == 60
    assert nucleus.refused == []
    assert nucleus.most_at_once <= 8


def test_a_nucleus_that_fills_in_no_variables_lets_the_agent_reach_no_topic() -> None:
    """AWS switches it off by default: the handbook has the setting."""
    operation, topic = "aws.greengrass#PublishToIoTCore", "fl/f/press-1/heartbeat"
    assert Nucleus(None, RECIPE, "press-1").allows(operation, topic)
    assert not Nucleus(None, RECIPE, "press-1", configuration={}).allows(operation, topic)
    handbook = (ROOT / "docs" / "operate.md").read_text()
    assert f"`{json.dumps(NUCLEUS_CONFIGURATION)}`" in handbook
