"""Small working implementations of our own ports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge.object_transfer import ObjectError
from edge.protocol.messages import Command, Envelope, ObjectRef, Reply, decode_order, seal
from edge.protocol.records import (
    Records,
    decode_records,
    decode_skeleton,
    digest,
    encode_records,
    encode_skeleton,
    merge,
)
from edge.training.worker import Job, Outcome
from edge.transports import Handler
from fl_runtime.run.keys import arrays_key, update_key
from fl_runtime.run.ports import ObjectMissing, StoredReply


class MemoryObjects:
    """ObjectStore in a dictionary; a URL is the key itself."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.puts: list[str] = []

    def get(self, key: str, limit: int | None = None) -> bytes:
        if key not in self.data or (limit is not None and len(self.data[key]) > limit):
            raise ObjectMissing(key)
        return self.data[key]

    def put(self, key: str, data: bytes) -> None:
        self.data[key] = data
        self.puts.append(key)

    def url_to_get(self, key: str, seconds: float) -> str:
        return key

    def url_to_put(self, key: str, seconds: float) -> str:
        return key


class MemoryFleet:
    """Commands and Replies at once: each device is a function from records to records, or to a raw
    reply.
    """

    def __init__(
        self,
        objects: MemoryObjects,
        devices: dict[str, Callable[[Command, Records], Records | Reply | None]],
    ) -> None:
        self.objects = objects
        self.devices = devices
        self.rows: dict[str, dict[str, StoredReply]] = {}
        self.commands: list[tuple[str, Command]] = []

    def send(self, fleet: str, device: str, payload: bytes, seconds: float) -> None:
        order = decode_order(payload)
        command = (
            order
            if isinstance(order, Command)
            else msgspec.json.decode(self.objects.get(order.command.url), type=Command)
        )
        self.commands.append((device, command))
        content = command.content or self.objects.get(command.content_ref.url).decode()  # type: ignore[union-attr]
        arrays = (
            decode_records(self.objects.get(arrays_key(command.run, command.arrays.digest))).arrays
            if command.arrays
            else {}
        )
        answer = self.devices[device](command, merge(decode_skeleton(content), arrays))
        if isinstance(answer, Records):
            answer = self.accept(command, device, answer)
        if answer is not None:
            self.put_row(command.reply_key, fleet, device, answer)

    def accept(self, command: Command, device: str, records: Records) -> Reply:
        """Do what a good device does with its result."""
        if not records.arrays:
            return Reply(
                run=command.run,
                phase=command.phase,
                message_id=command.message_id,
                status="ok",
                content=encode_skeleton(records),
            )
        blob = encode_records(records)
        self.objects.data[update_key(command.run, command.phase, device)] = blob
        ref = ObjectRef(digest(blob), len(blob))
        return Reply(
            run=command.run,
            phase=command.phase,
            message_id=command.message_id,
            status="ok",
            update=ref,
        )

    def put_row(self, key: str, fleet: str, device: str, reply: Reply) -> None:
        body = msgspec.json.decode(seal(reply, key), type=Envelope).body
        self.rows.setdefault(key, {})[device] = StoredReply(fleet, device, body)

    def read(self, reply_key: str) -> list[StoredReply]:
        return list(self.rows.get(reply_key, {}).values())


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


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


class FileObjects:
    """Device-side Objects over a dictionary of bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}
        self.fetched: list[str] = []

    async def fetch(self, ref: ObjectRef, seconds: float) -> tuple[Path, int]:
        self.fetched.append(ref.digest)
        if digest(self.data.get(ref.url, b"")) != ref.digest:
            raise ObjectError("bad-digest", "The object's digest is not the announced one.")
        file = self.folder / ref.digest
        file.write_bytes(self.data[ref.url])
        return file, ref.size

    async def put(self, url: str, file: Path, seconds: float) -> None:
        self.uploads[url] = file.read_bytes()


class InstantWorkers:
    """Workers that answer from a function, and keep the jobs they were given."""

    def __init__(self, answer: Callable[[Job], Outcome]) -> None:
        self.answer = answer
        self.jobs: list[Job] = []

    async def run(self, job: Job, seconds: float) -> Outcome:
        self.jobs.append(job)
        return self.answer(job)

    async def stop(self) -> None:
        return
