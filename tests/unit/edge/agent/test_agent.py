"""The agent: it reports itself, answers commands, and says when it stops."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from fakes.devices import Device, instant, with_device
from fakes.transport import MemoryTransport
from fakes.turbine import Turbine, ask

from edge.agent.agent import Agent
from edge.agent.heartbeat import last_will
from edge.agent.jobs import JobsClient
from edge.serving.socket_server import SOCKET
from edge.transports import Handler, TransportError


def test_heartbeats_say_what_the_device_can_run(tmp_path: Path) -> None:
    async def test(device: Device) -> None:
        beat = (await device.heartbeats(3))[0]
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
        before = len(await device.heartbeats(1))
        beat = (await device.heartbeats(before + 2))[-1]
        assert (beat.model, beat.since) == ("power/1", 1000.0)
        assert beat.serving is not None
        assert (beat.serving.predictions, [served.name for served in beat.serving.inputs]) == (
            2,
            ["0", "1"],
        )

    with_device(turbine.home, instant(), test)


def test_a_message_of_another_topic_is_ignored(tmp_path: Path) -> None:
    async def test(device: Device) -> None:
        device.deliver(b"{}", "fl/f/other/command")
        assert {topic.split("/")[-1] for topic in device.transport.topics} == {
            "command",
            "delta",
            "accepted",
            "notify-next",
        }
        await device.heartbeats(2)

    with_device(tmp_path, instant(), test)


def test_an_agent_that_cannot_connect_says_so(tmp_path: Path) -> None:
    class Down(MemoryTransport):
        async def connect(self, topics: list[str], handler: Handler) -> None:
            raise TransportError("the broker refuses")

    async def main() -> None:
        device = Device(tmp_path, instant())
        agent = Agent(device.config, Down(), device.objects, instant())
        with pytest.raises(TransportError, match="refuses"):
            await agent.run()

    asyncio.run(main())


def test_a_part_that_fails_starts_again_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.agent.agent.RESTART_SECONDS", 0.01)
    failures = iter([RuntimeError("a fault"), MemoryError(), ExceptionGroup("two", [KeyError()])])
    run = JobsClient.run

    async def fails(jobs: JobsClient) -> None:
        if (error := next(failures, None)) is not None:
            raise error
        await run(jobs)

    monkeypatch.setattr(JobsClient, "run", fails)

    async def test(device: Device) -> None:
        await device.transport.until(1, "/jobs/start-next")
        assert next(failures, None) is None
        await device.heartbeats(3)

    with_device(tmp_path, instant(), test)
