"""A device for unit tests: an agent on fakes, with the digits app installed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path

from support.paths import APPS

from edge.agent.agent import Agent
from edge.config import DeviceConfig
from edge.protocol.messages import Command, Heartbeat, Reply, unseal
from edge.protocol.records import Records, encode_skeleton
from edge.training.app_bundle import FlowerApp, load_app, unpack
from edge.training.worker import WorkerResult
from edge.training.worker_process import Workers
from fakes.keys import trust
from fakes.objects import FileObjects
from fakes.transport import MemoryTransport
from fakes.workers import InstantWorkers


def device_config(folder: Path, **changes: object) -> DeviceConfig:
    """The device ``d0`` of the fleet ``f``, in a folder."""
    fields = {
        "fleet": "f",
        "device": "d0",
        "endpoint": "127.0.0.1",
        "certificate": "c",
        "private_key": "k",
        "ca": "a",
        "home": str(folder),
        "heartbeat_seconds": 0.05,
        "node_config": {"partition-id": 0, "num-partitions": 3},
    }
    return DeviceConfig(**{**fields, **changes})


@functools.cache
def digits() -> FlowerApp:
    """The app that devices have installed."""
    return load_app(APPS / "digits")


_MOMENTS = itertools.count(1_800_000_000_000)


def a_command(message_id: str = "m1", **changes: object) -> Command:
    """A command to train the digits app, issued later than the one before."""
    fields = {
        "device": "d0",
        "issued": next(_MOMENTS),
        "run": "run-1",
        "phase": "00001-train-0001",
        "server_round": 1,
        "kind": "train",
        "message_id": message_id,
        "reply_key": "key",
        "app": digits().digest(),
        "seconds": 60.0,
        "flower_run_id": 7,
        "node_id": 8,
        "upload_url": "up",
        "run_config": "{}",
        "content": encode_skeleton(
            Records(configs={"config": {"server-round": 1}}, order=("arrays", "config"))
        ),
    }
    return Command(**{**fields, **changes})


class Device:
    """A device, and what a test needs to talk to it."""

    def __init__(self, folder: Path, workers: Workers, *, keys: bool = True) -> None:
        self.config = device_config(folder)
        self.config.cache_dir.mkdir(parents=True, exist_ok=True)
        self.app = digits()
        target = self.config.apps_dir / self.app.digest()
        if not target.exists():
            unpack(self.app.bundle(), target, self.app.digest())
        if keys:
            trust(self.config.trust_file)
        self.transport, self.objects = MemoryTransport(), FileObjects(self.config.cache_dir)
        self.agent = Agent(self.config, self.transport, self.objects, workers)

    def deliver(self, payload: bytes, topic: str = "fl/f/d0/command") -> None:
        """Deliver a message to the agent."""
        assert self.transport.handler is not None
        self.transport.handler(topic, payload)

    async def replies(self, count: int) -> list[Reply]:
        """Wait for so many replies."""
        return [unseal(payload, Reply) for payload in await self.transport.until(count, "/reply")]

    async def heartbeats(self, count: int) -> list[Heartbeat]:
        """Wait for so many heartbeats."""
        payloads = await self.transport.until(count, "/heartbeat")
        return [unseal(payload, Heartbeat) for payload in payloads]


def with_device(
    folder: Path,
    workers: Workers,
    test: Callable[[Device], Awaitable[None]],
    *,
    keys: bool = True,
) -> Device:
    """Run a device while ``test`` talks to it. Without ``keys`` it trusts nobody."""

    async def main() -> Device:
        device = Device(folder, workers, keys=keys)
        task = asyncio.ensure_future(device.agent.run())
        await asyncio.sleep(0)  # let it connect
        try:
            await test(device)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        return device

    return asyncio.run(main())


def instant(**fields: object) -> InstantWorkers:
    """Workers that answer every job at once, by default with a loss of 1."""
    content = encode_skeleton(Records(metrics={"m": {"loss": 1.0}}))
    return InstantWorkers(lambda job: WorkerResult(**{"ok": True, "content": content, **fields}))
