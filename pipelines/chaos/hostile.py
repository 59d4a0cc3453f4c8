"""A device that is enrolled and up to no good: ``python -m pipelines.chaos.hostile CONFIG
BEHAVIOUR_FILE``.

It trains as the others do, and then does to its update, its reply or its topics what its behaviour
says.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import numpy as np

from edge import logs
from edge.agent.heartbeat import last_will
from edge.agent.signals import until_signal
from edge.config import DeviceConfig, load_config
from edge.object_transfer import HttpObjects, ObjectError
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import Command, Heartbeat, ObjectRef, Reply, decode_order, seal
from edge.protocol.names import topic
from edge.protocol.records import (
    Records,
    ValueMap,
    decode_records,
    digest,
    encode_records,
    encode_skeleton,
)
from edge.transports import TransportError
from edge.transports.mqtt import MqttTransport
from pipelines.chaos.app.steady.model import Weights, examples, loss, train

logger = logging.getLogger(__name__)

HARMLESS = frozenset(
    {
        "honest",
        "duplicate",
        "replay",
        "forge-topic",
        "heartbeat-garbage",
        "flood",
        "other-key",
        "reply-garbage",
    }
)
"""Behaviours beside which the update itself is good, and may count."""

Spoil = Callable[[Weights], Weights]
SPOILED: dict[str, Spoil] = {
    "nan": lambda w: np.full_like(w, np.nan),
    "infinite": lambda w: np.where(np.arange(w.size) == w.size // 2, np.float32(np.inf), w),
    "huge": lambda w: (w * np.float32(1e6)).astype(np.float32),
    "shape": lambda w: w[:-1],
    "dtype": lambda w: w.astype(np.float64),
}
METRICS: dict[str, ValueMap] = {
    "no-examples": {},
    "zero-examples": {"num-examples": 0},
    "negative-examples": {"num-examples": -5},
    "many-examples": {"num-examples": 1e300},
    "odd-metrics": {"num-examples": 14, "surprise": 1.0},
    "nan-metrics": {"num-examples": 14, "extra": float("nan")},
}
FILES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda blob: blob[: len(blob) // 2],
    "long-header": lambda blob: (2**62).to_bytes(8, "little") + blob[8:],
    "garbage-file": lambda blob: random.Random(1).randbytes(len(blob)),  # noqa: S311  # noise, no secret
    "empty-file": lambda blob: blob[:0],
}
CLAIMS = ("wrong-digest", "large-claim", "no-upload", "overwritten")
REPLIES = ("foreign-run", "foreign-phase", "made-up-code", "silent")
BEHAVIOURS = (
    *sorted(HARMLESS - {"honest"}),
    *SPOILED,
    *METRICS,
    *FILES,
    *CLAIMS,
    *REPLIES,
    "wrong-name",
)


class Hostile:
    """The device."""

    def __init__(self, config: DeviceConfig, behaviour: Path) -> None:
        self._config = config
        self._behaviour_file = behaviour
        self._transport = MqttTransport(config, will=last_will(config))
        self._objects = HttpObjects(config.cache_dir)
        self._commands: asyncio.Queue[Command] = asyncio.Queue()
        self._given: list[bytes] = []
        self._partition = int(config.node_config["partition-id"])

    async def run(self) -> None:
        """Until cancelled."""
        await self._transport.connect(
            [topic(self._config.fleet, self._config.device, "command")], self._receive
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat())
                group.create_task(self._serve())
        finally:
            with contextlib.suppress(TransportError, asyncio.CancelledError):
                await self._transport.close()

    def _receive(self, _: str, payload: bytes) -> None:
        with contextlib.suppress(ProtocolError):
            order = decode_order(payload)
            if isinstance(order, Command):
                self._commands.put_nowait(order)

    async def _beat(self) -> None:
        apps = sorted(path.name for path in self._config.apps_dir.iterdir() if len(path.name) == 64)
        while True:
            await self._publish("heartbeat", seal(Heartbeat(state="idle", apps=apps)))
            if self._behaviour() == "heartbeat-garbage":
                for payload in (b"", b"\xff" * 500, b'{"body": 7}', b'{"body": "{}"}', b"[" * 2000):
                    await self._publish("heartbeat", payload)
                await self._publish("heartbeat", seal(Heartbeat(state="idle", apps=apps)))
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
            metrics: ValueMap = {
                "loss": loss(weights, self._partition),
                "num-examples": examples(self._partition),
            }
            reply = self._reply(
                command, content=encode_skeleton(Records(metrics={"metrics": metrics}))
            )
        else:
            reply = await self._trained(command, behaviour, train(weights, self._partition))
        await self._send(command, behaviour, reply)

    async def _trained(self, command: Command, behaviour: str, weights: Weights) -> Reply:
        weights = SPOILED[behaviour](weights) if behaviour in SPOILED else weights
        metrics = METRICS.get(behaviour, {"num-examples": examples(self._partition)})
        blob = encode_records(
            Records(
                arrays={"arrays": {"v" if behaviour == "wrong-name" else "w": weights}},
                metrics={"metrics": metrics},
            )
        )
        ref = ObjectRef(digest(blob), len(blob))
        if behaviour in FILES:
            blob = FILES[behaviour](blob)
            ref = ObjectRef(digest(blob), len(blob))
        if behaviour == "wrong-digest":
            ref = ObjectRef("0" * 64, len(blob))
        if behaviour == "large-claim":
            ref = ObjectRef(ref.digest, 2 * 2**30)
        if behaviour != "no-upload":
            await asyncio.to_thread(_put, command.upload_url, blob)
        if behaviour == "overwritten":
            await asyncio.to_thread(_put, command.upload_url, b"x" * len(blob))
        return self._reply(command, update=ref)

    async def _send(self, command: Command, behaviour: str, reply: Reply) -> None:
        replace = msgspec.structs.replace
        changed: dict[str, Reply] = {
            "foreign-run": replace(reply, run="run-of-another"),
            "foreign-phase": replace(reply, phase="00009-train-0009-00000000"),
            "made-up-code": replace(
                reply, status="error", code="i-made-this-up", reason="x" * 900, update=None
            ),
        }
        payload = seal(
            changed.get(behaviour, reply) if command.kind == "train" else reply, command.reply_key
        )
        self._given.append(payload)
        if behaviour == "other-key":
            await self._publish("reply", seal(reply, command.reply_key.replace("c0000", "c0001")))
        if behaviour == "reply-garbage":
            for noise in (
                b"",
                b"\x00" * 100,
                b"{" * 3000,
                b'{"key": "", "body": ""}',
                b'{"key": {"a": 1}, "body": []}',
            ):
                await self._publish("reply", noise)
        copies = {"duplicate": 3, "flood": 60}.get(behaviour, 1)
        for again in [payload] * copies + (
            random.sample(self._given, len(self._given)) if behaviour == "replay" else []
        ):
            await self._publish("reply", again)
        if behaviour == "forge-topic":
            await self._forge(payload)

    async def _forge(self, payload: bytes) -> None:
        """Speak as another device: the policy does not allow it, and the broker may hang up."""
        victim = self._config.device[:-1] + "0"
        attempts: list[Awaitable[None]] = [
            self._transport.publish(topic(self._config.fleet, victim, channel), payload)
            for channel in ("reply", "heartbeat")
        ]
        for attempt in attempts:
            with contextlib.suppress(TransportError):
                await attempt

    def _reply(self, command: Command, content: str = "", update: ObjectRef | None = None) -> Reply:
        return Reply(
            run=command.run,
            phase=command.phase,
            message_id=command.message_id,
            status="ok",
            content=content,
            update=update,
        )

    async def _publish(self, channel: str, payload: bytes) -> None:
        with contextlib.suppress(TransportError):
            await self._transport.publish(
                f"fl/{self._config.fleet}/{self._config.device}/{channel}", payload
            )

    def _behaviour(self) -> str:
        return (
            self._behaviour_file.read_text().strip() if self._behaviour_file.is_file() else "honest"
        )


def _put(url: str, blob: bytes) -> None:
    urllib.request.urlopen(urllib.request.Request(url, data=blob, method="PUT"), timeout=10).close()


async def _serve(config: DeviceConfig, behaviour: Path) -> None:
    await Hostile(config, behaviour).run()


if __name__ == "__main__":
    logs.set_up()
    asyncio.run(until_signal(_serve(load_config(Path(sys.argv[1])), Path(sys.argv[2]))))
