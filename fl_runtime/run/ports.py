"""Ports: what a cohort needs from AWS. :mod:`fl_runtime.run.aws` has the adapters."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, NamedTuple, Protocol

Clock = Callable[[], float]
"""Monotonic seconds."""
Sleep = Callable[[float], None]
"""Waits for the given number of seconds."""


class StoredReply(NamedTuple):
    """A row of the ``replies`` table. The IoT rule takes ``fleet`` and ``device`` from the topic,
    so they can be trusted; ``body`` is what the device sent.
    """

    fleet: str
    device: str
    body: str


class Commands(Protocol):
    """Sends commands to devices."""

    def send(self, fleet: str, device: str, payload: bytes, seconds: float) -> None:
        """Publish a command that expires after ``seconds``."""


class Replies(Protocol):
    """Reads the devices' replies."""

    def read(self, reply_key: str) -> list[StoredReply]:
        """All replies so far under one key."""


class ObjectStore(Protocol):
    """Objects by key."""

    def get(self, key: str, limit: int | None = None) -> bytes:
        """The object. Raises ObjectMissing when it is absent or longer than ``limit`` bytes."""

    def download(self, key: str, file: BinaryIO, limit: int) -> str:
        """Write an object to a file, by parts; returns its SHA-256. Raises ObjectMissing as
        :meth:`get` does.
        """

    def put(self, key: str, data: bytes) -> None:
        """Write an object, replacing one of the same key."""

    def discard(self, key: str) -> None:
        """Delete an object that nobody needs any more (idempotent). Never raises for a store that
        refuses: the lifecycle rule deletes the object later.
        """

    def url_to_get(self, key: str, seconds: float) -> str:
        """A URL that reads one object, valid for ``seconds``."""

    def url_to_put(self, key: str, seconds: float, limit: int) -> str:
        """An address that writes one object of at most ``limit`` bytes, valid for ``seconds``: a
        URL, or a form's (:mod:`edge.protocol.upload_form`)."""
