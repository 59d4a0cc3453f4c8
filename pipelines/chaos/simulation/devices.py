"""A simulated device: the product's agent on a loop, a disk and links of its own; or a hostile one.

A device is a row of boots. What one boot leaves on its disk is what the next one finds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.agent.agent import Agent
from edge.config import DeviceConfig
from edge.errors import MLEdgeOpsError
from edge.object_transfer import ObjectError
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import Command, ObjectRef, Reply, decode_order
from edge.protocol.names import topic
from edge.protocol.records import (
    Records,
    ValueMap,
    decode_records,
    digest,
    encode_records,
    encode_skeleton,
)
from edge.training.worker import WorkerJob, WorkerResult
from edge.transports import Handler, TransportError
from pipelines.chaos.app.steady.model import examples, loss, train
from pipelines.chaos.devices.behaviours import payloads_of, update_of
from pipelines.chaos.simulation.cloud import START, SimulatedCloud, key_of
from pipelines.chaos.simulation.disk import Disk, Files
from pipelines.chaos.simulation.event_loop import SimulatedLoop, start
from pipelines.chaos.simulation.scheduler import Process

FLEET = "sim"
REBOOT_SECONDS = 5.0
PUBLISH_SECONDS = 5.0


class BrokerLink:
    """A device's Transport in one boot."""

    def __init__(self, cloud: SimulatedCloud, device: str, loop: SimulatedLoop) -> None:
        self._cloud = cloud
        self._device = device
        self._loop = loop

    async def connect(self, topics: list[str], handler: Handler) -> None:
        """See Transport."""
        await asyncio.sleep(self._cloud.delay())
        if self._cloud.chance(self._cloud.weather.lost):
            raise TransportError("the broker cannot be reached")

        def deliver(source: str, payload: bytes) -> None:
            if source in topics:
                self._loop.call_soon(handler, source, payload)

        self._cloud.connected[self._device] = deliver

    async def publish(self, source: str, payload: bytes) -> None:
        """See Transport."""
        cloud = self._cloud
        await asyncio.sleep(cloud.delay())
        if cloud.chance(cloud.weather.lost):
            await asyncio.sleep(PUBLISH_SECONDS)
            raise TransportError("the message was not acknowledged")
        cloud.publish(self._device, source, payload)
        if cloud.chance(cloud.weather.duplicated):
            cloud.scheduler.at(cloud.delay(), lambda: cloud.publish(self._device, source, payload))
        await asyncio.sleep(cloud.delay())
        if cloud.chance(cloud.weather.unacknowledged):
            await asyncio.sleep(PUBLISH_SECONDS)
            raise TransportError("the acknowledgement was lost")

    async def renew(self) -> None:
        """See Transport."""
        raise TransportError("no certificates in a simulation")

    async def close(self) -> None:
        """See Transport."""
        self._cloud.connected.pop(self._device, None)


class Transfers:
    """A device's Objects in one boot."""

    def __init__(self, cloud: SimulatedCloud, cache: Path) -> None:
        self._cloud = cloud
        self._cache = cache

    async def fetch(self, ref: ObjectRef, seconds: float) -> tuple[Path, int]:
        """See Objects."""
        target = self._cache / ref.digest
        if target.is_file() and target.stat().st_size == ref.size:
            return target, 0
        await self._transfer(seconds, "download-failed")
        key = key_of(ref.url, self._cloud.scheduler.now)
        data = self._cloud.objects.get(key) if key is not None else None
        if data is None:
            raise ObjectError("download-failed", "The address has expired.")
        if digest(data) != ref.digest:
            raise ObjectError("bad-digest", "The object's digest is not the announced one.")
        target.write_bytes(data)
        return target, ref.size

    async def put(self, url: str, file: Path, seconds: float) -> None:
        """See Objects."""
        await self.upload(url, file.read_bytes(), seconds)

    async def upload(self, url: str, data: bytes, seconds: float) -> None:
        """Upload; whole or not at all, as S3 does."""
        await self._transfer(seconds, "upload-failed")
        key = key_of(url, self._cloud.scheduler.now, len(data))
        if key is None:
            raise ObjectError("upload-failed", "The address is not for this.")
        self._cloud.objects[key] = data
        await asyncio.sleep(self._cloud.delay())

    async def _transfer(self, seconds: float, code: str) -> None:
        takes = self._cloud.delay()
        await asyncio.sleep(min(takes, seconds))
        if takes > seconds or self._cloud.chance(self._cloud.weather.transfer_fails):
            raise ObjectError(code, "The link was cut.")


class Trainer:
    """A device's Workers: trains the steady app in virtual time."""

    def __init__(self, cloud: SimulatedCloud, device: str, trained: list[tuple[str, str]]) -> None:
        self._cloud = cloud
        self._device = device
        self._trained = trained

    async def run(self, job: WorkerJob, seconds: float) -> WorkerResult:
        """See Workers."""
        takes = self._cloud.scheduler.rng.uniform(0.05, 2.0)
        await asyncio.sleep(min(takes, seconds))
        if takes > seconds:
            return WorkerResult(ok=False, code="deadline", reason="not done in time")
        if self._cloud.chance(self._cloud.weather.worker_dies):
            return WorkerResult(ok=False, code="worker-died", reason="killed")
        partition = int(job.node_config["partition-id"])
        weights = next(iter(decode_records(Path(job.arrays_path).read_bytes()).arrays.values()))
        if job.kind == "evaluate":
            content = encode_skeleton(evaluation(weights["w"], partition))
            return WorkerResult(ok=True, content=content)
        self._trained.append((self._device, job.message_id))
        metrics: ValueMap = {"num-examples": examples(partition)}
        update = Records(
            arrays={"arrays": {"w": train(weights["w"], partition)}}, metrics={"metrics": metrics}
        )
        blob = encode_records(update)
        Path(job.update_path).write_bytes(blob)
        return WorkerResult(ok=True, update=ObjectRef(digest(blob), len(blob)))

    async def stop(self) -> None:
        """See Workers."""


def evaluation(weights: Any, partition: int) -> Records:
    """What an honest device reports of a model."""
    return Records(
        metrics={"metrics": {"loss": loss(weights, partition), "num-examples": examples(partition)}}
    )


@dataclass(kw_only=True)
class Machine:
    """One device over all its boots."""

    cloud: SimulatedCloud
    name: str
    index: int
    folder: Path
    """Below it, a folder for each boot."""
    disks: dict[str, Disk]
    """Where each boot's disk is announced."""
    files: Files
    app: Path
    app_digest: str
    trained: list[tuple[str, str]]
    fault: tuple[str, int, float] | None
    hostile: str
    skew: float
    faults: list[str]
    """Where a device's end that is a fault of ours is told."""
    boots: int = 0

    def boot(self) -> None:
        """Start the device with what is on its disk."""
        self.boots += 1
        process = Process(f"{self.name}#{self.boots}")
        loop = SimulatedLoop(self.cloud.scheduler, process)
        home = self.folder / f"{self.name}-{self.boots}"
        home.mkdir(parents=True)
        disk = Disk(home, process.step)
        disk.fill(self.files)
        (home / "cache").mkdir(exist_ok=True)
        (home / "apps").mkdir(exist_ok=True)
        (home / "apps" / self.app_digest).symlink_to(self.app)
        self.disks[str(home)] = disk
        self.loops.append(loop)
        process.on_step = self._faulty(process, disk)
        config = self._config(home)
        link = BrokerLink(self.cloud, self.name, loop)
        transfers = Transfers(self.cloud, config.cache_dir)
        if self.hostile:
            main = Hostile(self.cloud, config, link, transfers, self.hostile).run()
        else:
            main = self._serve(config, link, transfers)
        start(loop, main, self._ended(process))

    def __post_init__(self) -> None:
        """Every boot's loop is kept, to be buried at the end."""
        self.loops: list[SimulatedLoop] = []

    async def _serve(self, config: DeviceConfig, link: BrokerLink, transfers: Transfers) -> None:
        scheduler = self.cloud.scheduler
        await Agent(
            config,
            link,
            transfers,
            Trainer(self.cloud, self.name, self.trained),
            monotonic=scheduler.time,
            now=lambda: START + scheduler.now + self.skew,
        ).run()

    def _config(self, home: Path) -> DeviceConfig:
        return DeviceConfig(
            fleet=FLEET,
            device=self.name,
            home=str(home),
            heartbeat_seconds=15.0,
            node_config={"partition-id": self.index},
        )

    def _faulty(self, process: Process, disk: Disk) -> Callable[[int], None]:
        """Ends or pauses this boot at the step that the weather says; each fault happens once."""

        def on_step(step: int) -> None:
            if self.fault is None or step != self.fault[1]:
                return
            kind, _, seconds = self.fault
            self.fault = None
            scheduler = self.cloud.scheduler
            scheduler.note(kind, process.name)
            if kind == "pause":
                process.paused_until = scheduler.now + seconds
                return
            rng = scheduler.rng
            self.files = disk.after_power_cut(rng) if kind == "cut" else disk.files()
            self._die(process, seconds)

        return on_step

    def _die(self, process: Process, seconds: float) -> None:
        process.kill()
        self.cloud.connected.pop(self.name, None)
        self.cloud.scheduler.at(seconds, self.boot)

    def _ended(self, process: Process) -> Callable[[asyncio.Task[None]], None]:
        def ended(task: asyncio.Task[None]) -> None:
            if not process.alive or task.cancelled():
                return
            error = task.exception()
            if not isinstance(error, MLEdgeOpsError):
                self.faults.append(f"the agent {process.name} ended: {_leaves(error)}")
            # The service manager starts it again.
            self.files = self.disks[str(self.folder / f"{self.name}-{self.boots}")].files()
            self._die(process, REBOOT_SECONDS)

        return ended


def _leaves(error: BaseException | None) -> str:
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(_leaves(inner) for inner in error.exceptions)
    return repr(error)


class Hostile:
    """A device that is enrolled and misbehaves, as its behaviour says."""

    def __init__(
        self,
        cloud: SimulatedCloud,
        config: DeviceConfig,
        link: BrokerLink,
        transfers: Transfers,
        behaviour: str,
    ) -> None:
        self._cloud = cloud
        self._config = config
        self._link = link
        self._transfers = transfers
        self._behaviour = behaviour
        self._partition = int(config.node_config["partition-id"])
        self._commands: asyncio.Queue[Command] = asyncio.Queue()
        self._published: list[bytes] = []

    async def run(self) -> None:
        """Serve until killed."""
        commands = topic(FLEET, self._config.device, "command")
        while True:
            with contextlib.suppress(TransportError):
                await self._link.connect([commands], self._receive)
                break
        while True:
            command = await self._commands.get()
            with contextlib.suppress(ObjectError, TransportError):
                await self._answer(command)

    def _receive(self, _: str, payload: bytes) -> None:
        with contextlib.suppress(ProtocolError):
            order = decode_order(payload)
            if isinstance(order, Command):
                self._commands.put_nowait(order)

    async def _answer(self, command: Command) -> None:
        if command.arrays is None or self._behaviour == "silent":
            return
        path, _ = await self._transfers.fetch(command.arrays, command.seconds)
        weights = next(iter(decode_records(path.read_bytes()).arrays.values()))["w"]
        if command.kind == "evaluate":
            reply = _reply(command, content=encode_skeleton(evaluation(weights, self._partition)))
        else:
            trained = train(weights, self._partition)
            update = update_of(self._behaviour, trained, self._partition, command.message_id)
            for blob in update.uploads:
                await self._transfers.upload(command.upload_url, blob, command.seconds)
            reply = _reply(command, update=update.ref)
        payloads = payloads_of(self._behaviour, command, reply, self._published)
        for payload in payloads:
            await self._publish(topic(FLEET, self._config.device, "reply"), payload)
        if self._behaviour == "forge-topic":
            await self._publish(topic(FLEET, f"{self._config.device[:-1]}0", "reply"), payloads[-1])

    async def _publish(self, source: str, payload: bytes) -> None:
        with contextlib.suppress(TransportError):
            await self._link.publish(source, payload)


def _reply(command: Command, *, content: str = "", update: ObjectRef | None = None) -> Reply:
    return Reply(
        run=command.run,
        phase=command.phase,
        message_id=command.message_id,
        status="ok",
        content=content,
        update=update,
    )
