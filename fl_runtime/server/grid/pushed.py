"""Messages that an app has pushed: their replies, until it pulls them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from flwr.app import Message

Exchange = tuple[Sequence[Message], Sequence[Message]]
"""The messages of a phase that is over, and their replies."""


class PushedMessages:
    """Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._running = 0
        self._replies: dict[str, Message] = {}
        self._ended: list[Exchange] = []
        self._error: Exception | None = None

    def begin(self) -> None:
        """A phase begins."""
        with self._lock:
            self._running += 1

    def settle(self, seconds: float) -> None:
        """Wait until all phases are over, at most so long."""
        with self._lock:
            self._lock.wait_for(lambda: not self._running, seconds)

    def add(self, reply: Message) -> None:
        """A reply has come."""
        with self._lock:
            self._replies[reply.metadata.reply_to_message_id] = reply

    def lost(self, replies: Iterable[Message]) -> None:
        """Replies to messages that could not be sent."""
        for reply in replies:
            self.add(reply)

    def end(self, messages: Sequence[Message], replies: Sequence[Message]) -> None:
        """A phase is over."""
        with self._lock:
            self._ended.append((messages, replies))
            self._running -= 1
            self._lock.notify_all()

    def fail(self, error: Exception) -> None:
        """A phase could not be carried out."""
        with self._lock:
            self._error = error
            self._running -= 1
            self._lock.notify_all()

    def take(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies to these messages that have come, each once; raises what a phase raised."""
        with self._lock:
            if self._error is not None:
                raise self._error
            wanted = [name for name in message_ids if name in self._replies]
            return [self._replies.pop(name) for name in wanted]

    def ended(self) -> list[Exchange]:
        """The phases that have ended since the last call."""
        with self._lock:
            ended, self._ended = self._ended, []
            return ended
