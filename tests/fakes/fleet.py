"""A fleet in memory: devices are functions, and answer as soon as they are sent a command."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from edge.protocol.messages import Command, Envelope, ObjectRef, Reply, seal
from edge.protocol.orders import read_unverified
from edge.protocol.records import (
    Records,
    decode_records,
    decode_skeleton,
    digest,
    encode_records,
    encode_skeleton,
    merge,
)
from fakes.objects import MemoryObjects
from fl_runtime.run.keys import arrays_key, update_key
from fl_runtime.run.ports import StoredReply


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
        order = read_unverified(payload)
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
