"""One cohort at the server: its pending request, its streams, and what it has answered.

Of what a proxy says, only that counts which answers the pending request, each device once: a slow
proxy may still speak of an earlier phase, its successor repeats what it said, and a proxy that is
not ours any more says what it likes.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from fl_runtime.cohort.rpc import FromProxy, FromServer, Goodbye, StreamRefused
from fl_runtime.run.messages import (
    PART_BYTES,
    DeviceResult,
    Folded,
    FoldedPart,
    PhaseEvent,
    PhaseRequest,
)
from fl_runtime.run.ports import Clock

STREAMS = 2
"""Streams of one cohort at once: a proxy's, and that of its predecessor, which may be half open."""
STRAYS = 10_000
"""Messages that answer nothing before their stream ends."""
MESSAGE_BYTES = 4 * 2**20
"""Longest message. A device's metrics and reply have bounds of their own, below this, and so has a
part of a mean.
"""


class Stream:
    """One proxy's stream: what the server has to send."""

    def __init__(self, session: int) -> None:
        self.session = session
        self._outbox: queue.Queue[FromServer | None] = queue.Queue()

    def send(self, item: FromServer) -> None:
        """Send a message."""
        self._outbox.put(item)

    def end(self) -> None:
        """End the stream without a goodbye: its proxy attaches again, unless it is gone."""
        self._outbox.put(None)

    def outgoing(self) -> Iterator[FromServer]:
        """What to send, until the stream ends."""
        while (item := self._outbox.get()) is not None:
            yield item


class Line:
    """One cohort's line. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        """Held by the phase that uses the line: it has one pending request."""
        self._lock = threading.Lock()
        self._session = 0
        """Number of the newest stream; what older ones say does not count."""
        self._streams: list[Stream] = []
        self._pending: PhaseRequest | None = None
        self._over = False
        self._inbox: queue.Queue[PhaseEvent] = queue.Queue()
        self._due: set[tuple[str, int, str]] = set()
        """Devices that have not answered: name, node id and message id."""
        self._folded = False
        self._mean_bytes = 0
        """Length of the parts of the mean so far."""
        self._strays = 0

    def begin(self, request: PhaseRequest) -> None:
        """Send a request to the proxy attached now, or to the next one."""
        with self._lock:
            self._pending, self._inbox = request, queue.Queue()
            self._due = {(to.device, to.node_id, to.message_id) for to in request.targets}
            self._folded, self._mean_bytes = False, 0
            if self._streams:
                self._streams[-1].send(request)

    def finish(self) -> None:
        """The phase is over."""
        with self._lock:
            self._pending = None

    def hang_up(self) -> None:
        """End the streams. A proxy that is still there attaches again."""
        with self._lock:
            for stream in self._streams:
                stream.end()

    def say_goodbye(self) -> None:
        """Tell the cohort's proxy that the run is over, the next one too."""
        with self._lock:
            self._over = True
            for stream in self._streams:
                stream.send(Goodbye())

    def connect(self) -> Stream | None:
        """A new stream, which starts with the pending request. Older ones end; None when they have
        not ended yet.

        A replaced proxy gets a goodbye: else it would come back, and the two would take the cohort
        from each other for ever.
        """
        with self._lock:
            for stream in self._streams:
                stream.send(Goodbye())
            if len(self._streams) >= STREAMS:
                return None
            self._session += 1
            self._strays, self._mean_bytes = 0, 0
            made = Stream(self._session)
            self._streams.append(made)
            if self._over:
                made.send(Goodbye())
            elif self._pending is not None:
                made.send(self._pending)
            return made

    def disconnect(self, stream: Stream) -> None:
        """A stream has ended."""
        with self._lock:
            if stream in self._streams:
                self._streams.remove(stream)
            stream.end()

    def accept(self, session: int, item: FromProxy) -> None:
        """Take what the proxy of a session says. Raises StreamRefused when it answers nothing too
        often.
        """
        with self._lock:
            if session == self._session and self._pending is not None and self._answers(item):
                self._inbox.put(item)
                return
            self._strays += 1
            if self._strays > STRAYS:
                raise StreamRefused(f"{STRAYS} messages answered nothing")

    def events(self, deadline: float, clock: Clock) -> Iterator[PhaseEvent]:
        """What arrives until the deadline."""
        while (left := deadline - clock()) > 0:
            try:
                yield self._inbox.get(timeout=left)
            except queue.Empty:
                return

    def _answers(self, item: FromProxy) -> bool:
        """Whether it answers the pending request, for the first time."""
        if isinstance(item, DeviceResult):
            named = (item.device, item.node_id, item.message_id)
            known = named in self._due
            self._due.discard(named)
            return known
        if self._pending is None or item.phase != self._pending.phase:
            return False
        if isinstance(item, FoldedPart):
            follows = item.offset == self._mean_bytes and not self._folded
            # Many small parts, or empty ones for ever, would fill the inbox.
            follows = follows and len(item.data) == PART_BYTES
            self._mean_bytes += len(item.data) if follows else 0
            # A mean may be as long as an update may be.
            return follows and self._mean_bytes <= self._pending.size_limit
        if isinstance(item, Folded):
            first, self._folded = not self._folded, True
            return first
        return True
