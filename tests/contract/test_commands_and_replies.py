"""The contract of how a cohort speaks with devices: commands go out, replies are read by key."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from fakes.fleet import MemoryFleet
from fakes.keys import sealed
from fakes.objects import MemoryObjects
from support.devices import device
from support.waiting import until

from edge.agent.heartbeat import last_will
from edge.config import DeviceConfig
from edge.protocol.messages import Command, Reply, seal
from edge.protocol.orders import read_unverified
from edge.protocol.records import Records, encode_skeleton
from edge.transports.mqtt import MqttTransport
from fl_runtime.run.aws import DynamoReplies, IotCommands, client
from fl_runtime.run.keys import reply_key
from fl_runtime.run.ports import Commands, Replies
from pipelines.local.cloud import LocalCloud


@dataclass
class Wire:
    """Two devices that answer each command by ``answer``, and the ports that reach them."""

    commands: Commands
    replies: Replies
    fleet: str
    devices: list[str]
    heard: list[tuple[str, str]]
    """(device, message id) of every command that arrived."""


def command(key: str, message_id: str) -> Command:
    return Command(
        device="d0",
        issued=1,
        run="run-1",
        phase="00001-train-0001",
        server_round=1,
        kind="train",
        message_id=message_id,
        reply_key=key,
        app="a" * 64,
        seconds=20.0,
        flower_run_id=1,
        node_id=2,
        content=encode_skeleton(Records()),
        upload_url="",
        run_config="{}",
    )


def answer(order: Command) -> Reply:
    """What the devices of this suite answer."""
    return Reply(run=order.run, phase=order.phase, message_id=order.message_id, status="ok")


class WireContract:
    """What commands and replies promise together. Subclasses give ``wire``."""

    @pytest.fixture
    def key(self) -> str:
        return reply_key(f"run-{uuid.uuid4().hex[:10]}", "00001-train-0001", "c0000")

    def test_nothing_is_read_before_anybody_answers(self, wire: Wire, key: str) -> None:
        assert wire.replies.read(key) == []

    def test_a_command_reaches_its_device_and_no_other(self, wire: Wire, key: str) -> None:
        wire.commands.send(wire.fleet, wire.devices[0], sealed(command(key, "m1")), 20.0)
        until(lambda: wire.replies.read(key))
        assert wire.heard == [(wire.devices[0], "m1")]

    def test_each_devices_reply_is_read_under_the_commands_key(self, wire: Wire, key: str) -> None:
        for name in wire.devices:
            wire.commands.send(wire.fleet, name, sealed(command(key, f"m-{name}")), 20.0)
        rows = until(lambda: (found := wire.replies.read(key)) and len(found) == 2 and found)
        assert sorted((row.fleet, row.device) for row in rows) == [
            (wire.fleet, name) for name in wire.devices
        ]
        replies = {row.device: msgspec.json.decode(row.body, type=Reply) for row in rows}
        assert replies == {name: answer(command(key, f"m-{name}")) for name in wire.devices}

    def test_a_device_has_one_reply_under_a_key_its_last(self, wire: Wire, key: str) -> None:
        for number in ("m1", "m2"):
            wire.commands.send(wire.fleet, wire.devices[0], sealed(command(key, number)), 20.0)
            row = until(
                lambda number=number: [r for r in wire.replies.read(key) if number in r.body]
            )
        assert len(row) == len(wire.replies.read(key)) == 1


class TestMemoryFleet(WireContract):
    @pytest.fixture
    def wire(self) -> Wire:
        heard: list[tuple[str, str]] = []

        def named(name: str) -> Callable[..., Reply]:
            def respond(order: Command, _: Any) -> Reply:
                heard.append((name, order.message_id))
                return answer(order)

            return respond

        fleet = MemoryFleet(MemoryObjects(), {name: named(name) for name in ("d0", "d1")})
        return Wire(fleet, fleet, "f", ["d0", "d1"], heard)


class TestIotAndDynamo(WireContract):
    """Through the local cloud's broker, its IoT rule and the replies table."""

    @pytest.fixture
    def wire(self, reached: LocalCloud) -> Iterator[Wire]:
        fleet = f"contract-{uuid.uuid4().hex[:8]}"
        configs = [device(reached, index, fleet) for index in range(2)]
        heard: list[tuple[str, str]] = []
        ready, done = threading.Event(), threading.Event()
        thread = threading.Thread(target=asyncio.run, args=(serve(configs, heard, ready, done),))
        thread.start()
        try:
            assert ready.wait(30)
            yield Wire(
                IotCommands(client("iot-data")),
                DynamoReplies(client("dynamodb"), reached.deployment.replies_table),
                fleet,
                [config.device for config in configs],
                heard,
            )
        finally:
            done.set()
            thread.join(30)


async def serve(
    configs: list[DeviceConfig],
    heard: list[tuple[str, str]],
    ready: threading.Event,
    done: threading.Event,
) -> None:
    """Devices that answer over MQTT until ``done``."""
    transports, tasks = [], set()
    try:
        for config in configs:
            transport = MqttTransport(config, will=last_will(config))
            own = f"fl/{config.fleet}/{config.device}"

            def on_command(
                _: str, payload: bytes, transport=transport, own=own, name=config.device
            ) -> None:
                order = read_unverified(payload)
                assert isinstance(order, Command)
                heard.append((name, order.message_id))
                reply = transport.publish(f"{own}/reply", seal(answer(order), order.reply_key))
                task = asyncio.ensure_future(reply)
                tasks.add(task)
                task.add_done_callback(tasks.discard)

            await transport.connect([f"{own}/command"], on_command)
            transports.append(transport)
        ready.set()
        await asyncio.to_thread(done.wait)
    finally:
        for transport in transports:
            await transport.close()
