"""Replies on disk: kept until the broker has them, and found again when a command is repeated.

So a reply survives a lost connection and a reboot, and a repeated command (MQTT QoS 1 delivers at
least once) is answered without training again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edge.files import make_folder, remove_parts, write_atomically, written
from edge.logs import event
from edge.protocol.messages import COMMAND_LIMIT
from edge.transports import Transport, TransportError
from edge.typed import from_json

logger = logging.getLogger(__name__)

KEPT = 16
"""Replies kept. The oldest go first: their rounds are over by then."""


class SpooledReply(msgspec.Struct, frozen=True):
    """One reply, sealed as it is published."""

    message_id: str
    payload: bytes
    sent: bool
    number: int
    """Counts the replies of this device: gives their order."""


class Spool:
    """The last replies. On a disk that cannot be written, they are kept in memory only. Threads may
    share it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._replies: dict[str, SpooledReply] = {}
        self._lock = threading.Lock()
        remove_parts(folder)
        for file in folder.glob("*.json") if folder.is_dir() else []:
            try:
                reply = from_json(file.read_bytes(), type=SpooledReply)
            except (OSError, ValueError):
                file.unlink(missing_ok=True)
                continue
            self._replies[reply.message_id] = reply
        self._number = max((reply.number for reply in self._replies.values()), default=0)

    def get(self, message_id: str) -> bytes | None:
        """Return the reply to a command, or None."""
        reply = self._replies.get(message_id)
        return reply.payload if reply is not None else None

    def keep(self, message_id: str, payload: bytes) -> None:
        """Store a reply that is still to be sent."""
        if len(payload) > 4 * COMMAND_LIMIT:
            raise ValueError(f"a reply of {len(payload)} bytes cannot be sent")
        with self._lock:
            self._number += 1
            self._put(SpooledReply(message_id, payload, False, self._number))
            for old in sorted(self._replies.values(), key=lambda reply: reply.number)[:-KEPT]:
                del self._replies[old.message_id]
                with contextlib.suppress(OSError):  # a disk that has become read-only
                    self._file(old.message_id).unlink(missing_ok=True)

    def mark_sent(self, message_id: str) -> None:
        """Note that the broker has the reply."""
        with self._lock:
            reply = self._replies.get(message_id)
            if reply is not None and not reply.sent:
                self._put(msgspec.structs.replace(reply, sent=True))

    def waits(self, message_id: str) -> bool:
        """Whether a reply is still to be sent."""
        reply = self._replies.get(message_id)
        return reply is not None and not reply.sent

    def unsent(self) -> list[SpooledReply]:
        """Return the replies that the broker does not have yet, oldest first."""
        return sorted(
            (reply for reply in list(self._replies.values()) if not reply.sent),
            key=lambda reply: reply.number,
        )

    def _put(self, reply: SpooledReply) -> None:
        file = self._file(reply.message_id)
        try:
            make_folder(self._folder)
            # Losing the mark of a sent reply costs only a repetition, which the cloud ignores.
            write_atomically(file, msgspec.json.encode(reply), durable=not reply.sent)
        except OSError as error:
            event(logger, "spool-not-written", logging.WARNING, reason=str(error))
        # After it is stored: a heartbeat that comes meanwhile must not send it.
        self._replies[reply.message_id] = reply

    def _file(self, message_id: str) -> Path:
        """Name a reply's file by a digest: a command's id may hold any characters."""
        return self._folder / f"{hashlib.sha256(message_id.encode()).hexdigest()[:32]}.json"


class Outbox:
    """Publishes replies by way of the spool."""

    def __init__(self, spool: Spool, transport: Transport, topic: str) -> None:
        self._spool = spool
        self._transport = transport
        self._topic = topic
        self._sending: set[str] = set()
        """Replies that are being stored, published or marked."""

    def earlier(self, message_id: str) -> bytes | None:
        """Return the reply that was already given to a command, or None."""
        return self._spool.get(message_id)

    async def send(self, message_id: str, payload: bytes) -> None:
        """Publish a reply; store it first when it is new. A lost connection only delays it."""
        with self._being_sent(message_id):
            if self._spool.get(message_id) is None:
                await written(self._spool.keep, message_id, payload)
            await self._publish(message_id, payload)

    async def send_once(self, payload: bytes) -> None:
        """Publish a refusal, which is not stored: anybody could fill the spool with such."""
        with contextlib.suppress(TransportError):
            await self._transport.publish(self._topic, payload)

    async def send_waiting(self) -> None:
        """Publish what a lost connection or a reboot kept back.

        The cloud ignores a reply whose round is over.
        """
        for reply in self._spool.unsent():
            name = reply.message_id
            # Meanwhile it may have been sent by itself.
            if name not in self._sending and self._spool.waits(name):
                with self._being_sent(name):
                    await self._publish(name, reply.payload)

    @contextlib.contextmanager
    def _being_sent(self, message_id: str) -> Iterator[None]:
        """From before a reply is stored until its mark is, no heartbeat sends it."""
        self._sending.add(message_id)
        try:
            yield
        finally:
            self._sending.discard(message_id)

    async def _publish(self, message_id: str, payload: bytes) -> None:
        try:
            await self._transport.publish(self._topic, payload)
        except TransportError as error:
            event(logger, "reply-waits", logging.WARNING, message=message_id, reason=str(error))
        else:
            await written(self._spool.mark_sent, message_id)
