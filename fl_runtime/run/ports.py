"""What a cohort needs from the outside, as small typed ports. fl_runtime/run/aws.py has the real
ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

Clock = Callable[[], float]
"""Seconds, monotonic."""
Sleep = Callable[[float], None]


class StoredReply(NamedTuple):
    """One row of the ``replies`` table. ``device`` and ``fleet`` were taken from the topic by the
    IoT rule.
    """

    fleet: str
    device: str
    body: str


class Commands(Protocol):
    """Sends a command to a device."""

    def send(self, fleet: str, device: str, payload: bytes, seconds: float) -> None:
        """Publish; the broker drops it after ``seconds``."""


class Replies(Protocol):
    """Reads what devices answered."""

    def read(self, reply_key: str) -> list[StoredReply]:
        """All replies so far under one key."""


class ObjectStore(Protocol):
    """Objects by key."""

    def get(self, key: str, limit: int | None = None) -> bytes:
        """The object's bytes; raises ObjectMissing when it is absent or larger than ``limit``."""

    def put(self, key: str, data: bytes) -> None:
        """Write an object."""

    def url_to_get(self, key: str, seconds: float) -> str:
        """A presigned URL to read one object."""

    def url_to_put(self, key: str, seconds: float) -> str:
        """A presigned URL to write one object."""
