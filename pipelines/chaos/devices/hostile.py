"""A device that is enrolled and misbehaves.

``python -m pipelines.chaos.devices.hostile CONFIG BEHAVIOUR_FILE``. It trains as the others do,
then changes its update, reply or topics as the behaviour in the file says (``behaviours``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import urllib.error
import urllib.request
from pathlib import Path

from edge import logs
from edge.agent.heartbeat import last_will
from edge.agent.signals import until_signal
from edge.config import DeviceConfig, load_config
from edge.identity.trust import trusted_addresses
from edge.object_transfer import HttpObjects, ObjectError
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import ORDER_VERSION, Command, Heartbeat, ObjectRef, Reply, seal
from edge.protocol.names import topic
from edge.protocol.orders import read_unverified
from edge.protocol.records import Records, ValueMap, decode_records, encode_skeleton
from edge.protocol.upload_form import upload_request
from edge.transports import TransportError
from edge.transports.mqtt import MqttTransport
from pipelines.chaos.app.steady.model import Weights, examples, loss, train
from pipelines.chaos.devices.behaviours import (
    GARBAGE_HEARTBEATS,
    HONEST,
    LIE,
    payloads_of,
    update_of,
)

logger = logging.getLogger(__name__)


class HostileDevice:
    """The device."""

    def __init__(self, config: DeviceConfig, behaviour: Path) -> None:
        self._config = config
        self._behaviour_file = behaviour
        self._transport = MqttTransport(config, will=last_will(config))
        self._objects = HttpObjects(config.cache_dir, trusted_addresses(config))
        self._commands: asyncio.Queue[Command] = asyncio.Queue()
        self._published: list[bytes] = []
        self._partition = int(config.node_config["partition-id"])

    async def run(self) -> None:
        """Serve until cancelled."""
        commands = topic(self._config.fleet, self._config.device, "command")
        await self._transport.connect([commands], self._receive)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send_heartbeats())
                group.create_task(self._serve())
        finally:
            with contextlib.suppress(TransportError, asyncio.CancelledError):
                await self._transport.close()

    def _receive(self, _: str, payload: bytes) -> None:
        with contextlib.suppress(ProtocolError):
            order = read_unverified(payload)
            if isinstance(order, Command):
                self._commands.put_nowait(order)

    async def _send_heartbeats(self) -> None:
        apps = sorted(path.name for path in self._config.apps_dir.iterdir() if len(path.name) == 64)
        honest = seal(Heartbeat(state="idle", apps=apps, orders=ORDER_VERSION))
        while True:
            await self._publish("heartbeat", honest)
            if self._behaviour() == "heartbeat-garbage":
                for payload in (*GARBAGE_HEARTBEATS, honest):
                    await self._publish("heartbeat", payload)
            await asyncio.sleep(self._config.heartbeat_seconds)

    async def _serve(self) -> None:
        while True:
            command = await self._commands.get()
            try:
                await self._answer(command, self._behaviour())
            except (ObjectError, OSError, urllib.error.URLError) as error:
                logs.event(logger, "hostile-failed", logging.WARNING, reason=str(error))

    async def _answer(self, command: Command, behaviour: str) -> None:
        if command.arrays is None or behaviour == "silent":
            return
        path, _ = await self._objects.fetch(command.arrays, command.seconds)
        weights = next(iter(decode_records(path.read_bytes()).arrays.values()))["w"]
        if command.kind == "evaluate":
            told = LIE if behaviour == "lying-evaluation" else loss(weights, self._partition)
            reply = _evaluation(command, told, self._partition)
        else:
            trained = train(weights, self._partition)
            reply = await _upload(command, behaviour, trained, self._partition)
        payloads = payloads_of(behaviour, command, reply, self._published)
        for payload in payloads:
            await self._publish("reply", payload)
        if behaviour == "forge-topic":
            await self._forge(payloads[-1])

    async def _forge(self, payload: bytes) -> None:
        """Publish as another device: the policy forbids it, and the broker may disconnect us."""
        victim = self._config.device[:-1] + "0"
        for channel in ("reply", "heartbeat"):
            await self._publish(channel, payload, device=victim)

    async def _publish(self, channel: str, payload: bytes, device: str = "") -> None:
        name = f"fl/{self._config.fleet}/{device or self._config.device}/{channel}"
        with contextlib.suppress(TransportError):
            await self._transport.publish(name, payload)

    def _behaviour(self) -> str:
        file = self._behaviour_file
        return file.read_text().strip() if file.is_file() else HONEST


def _evaluation(command: Command, told: float, partition: int) -> Reply:
    metrics: ValueMap = {"loss": told, "num-examples": examples(partition)}
    return _reply(command, content=encode_skeleton(Records(metrics={"metrics": metrics})))


async def _upload(command: Command, behaviour: str, weights: Weights, partition: int) -> Reply:
    """Upload the update as the behaviour has it; returns the reply that announces it."""
    update = update_of(behaviour, weights, partition, command.message_id)
    for blob in update.uploads:
        await asyncio.to_thread(_put, command.upload_url, blob)
    return _reply(command, update=update.ref)


def _reply(command: Command, *, content: str = "", update: ObjectRef | None = None) -> Reply:
    return Reply(
        run=command.run,
        phase=command.phase,
        message_id=command.message_id,
        status="ok",
        content=content,
        update=update,
    )


def _put(url: str, blob: bytes) -> None:
    upload = upload_request(url, len(blob))
    request = urllib.request.Request(
        upload.url,
        data=upload.head + blob + upload.tail,
        method=upload.method,
        headers=upload.headers,
    )
    urllib.request.urlopen(request, timeout=10).close()


async def _main(config: DeviceConfig, behaviour: Path) -> None:
    await HostileDevice(config, behaviour).run()


if __name__ == "__main__":
    logs.set_up()
    asyncio.run(until_signal(_main(load_config(Path(sys.argv[1])), Path(sys.argv[2]))))
