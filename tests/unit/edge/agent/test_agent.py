"""The agent: it reports itself, answers commands, and says when it stops."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec
from fakes.devices import Device, instant, with_device
from fakes.turbine import Turbine, ask

from edge.agent.heartbeat import last_will
from edge.protocol.messages import (
    Envelope,
    Heartbeat,
    decode,
)
from edge.serving.socket_server import SOCKET


def test_heartbeats_say_what_the_device_can_run(tmp_path: Path) -> None:
    async def test(device: Device) -> None:
        beats = await device.transport.until(3, "/heartbeat")
        beat = decode(msgspec.json.decode(beats[0], type=Envelope).body, Heartbeat)
        assert (beat.state, beat.apps) == ("idle", [device.app.digest()])

    device = with_device(tmp_path, instant(), test)
    assert device.transport.published[-1] == last_will(device.config), "a device that stops says so"
    assert device.transport.closed


def test_the_agent_serves_the_socket_and_tells_of_it_in_its_heartbeats(turbine: Turbine) -> None:
    shutil.rmtree(turbine.home / "apps", ignore_errors=True)
    turbine.use(2.0, turbine.app())

    async def test(device: Device) -> None:
        while not (turbine.home / SOCKET).exists():
            await asyncio.sleep(0.01)
        (answer,) = await ask(str(turbine.home / SOCKET), b'{"inputs": [[1, 2], [3, 4]]}')
        assert answer == {"model_version": "power/1", "outputs": [6.0, 14.0]}
        before = len(await device.transport.until(1, "/heartbeat"))
        beat = decode(
            msgspec.json.decode(
                (await device.transport.until(before + 2, "/heartbeat"))[-1], type=Envelope
            ).body,
            Heartbeat,
        )
        assert (beat.model, beat.since) == ("power/1", 1000.0)
        assert beat.serving is not None
        assert (beat.serving.predictions, [served.name for served in beat.serving.inputs]) == (
            2,
            ["0", "1"],
        )

    with_device(turbine.home, instant(), test)
