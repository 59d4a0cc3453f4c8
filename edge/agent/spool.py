"""A device's replies on disk: kept until the broker has them, and remembered for a command that
comes twice.

So a reply survives a lost connection and a reboot, and a repeated command is answered without
training again.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import msgspec

from edge.logs import event
from edge.protocol.messages import COMMAND_LIMIT

logger = logging.getLogger(__name__)

KEPT = 16
"""Replies remembered. The oldest go first: by then their rounds are over."""


class Entry(msgspec.Struct, frozen=True):
    """One reply, sealed as it is published."""

    message_id: str
    payload: bytes
    sent: bool
    number: int


class Spool:
    """The last replies. A disk that takes nothing costs the memory of them over a reboot, no more."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries: dict[str, Entry] = {}
        for file in folder.glob("*.json") if folder.is_dir() else []:
            try:
                entry = msgspec.json.decode(file.read_bytes(), type=Entry)
            except (OSError, msgspec.DecodeError):
                file.unlink(missing_ok=True)  # cut off by a power failure
                continue
            self._entries[entry.message_id] = entry
        self._number = max((entry.number for entry in self._entries.values()), default=0)

    def get(self, message_id: str) -> bytes | None:
        """The reply given to a command, or None."""
        entry = self._entries.get(message_id)
        return entry.payload if entry is not None else None

    def keep(self, message_id: str, payload: bytes) -> None:
        """Remember a reply that is still to be sent."""
        if len(payload) > 4 * COMMAND_LIMIT:
            raise ValueError(f"a reply of {len(payload)} bytes cannot be sent")
        self._number += 1
        self._put(Entry(message_id, payload, False, self._number))
        for old in sorted(self._entries.values(), key=lambda entry: entry.number)[:-KEPT]:
            del self._entries[old.message_id]
            self._file(old.message_id).unlink(missing_ok=True)

    def sent(self, message_id: str) -> None:
        """The broker has it."""
        entry = self._entries.get(message_id)
        if entry is not None and not entry.sent:
            self._put(msgspec.structs.replace(entry, sent=True))

    def unsent(self) -> list[Entry]:
        """Replies that no broker has taken yet, oldest first."""
        return sorted(
            (entry for entry in self._entries.values() if not entry.sent),
            key=lambda entry: entry.number,
        )

    def _put(self, entry: Entry) -> None:
        self._entries[entry.message_id] = entry
        file = self._file(entry.message_id)
        part = file.with_suffix(".part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(msgspec.json.encode(entry))
            part.replace(file)
        except OSError as error:
            event(logger, "spool-not-written", logging.WARNING, reason=str(error))

    def _file(self, message_id: str) -> Path:
        """Named by a digest: a command's id may hold anything."""
        return self._folder / f"{hashlib.sha256(message_id.encode()).hexdigest()[:32]}.json"
