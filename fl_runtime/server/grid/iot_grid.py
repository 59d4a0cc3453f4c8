"""``IoTGrid``: Flower's grid over a fleet of AWS IoT devices.

``Strategy`` and ``ServerApp`` see an ordinary ``flwr.serverapp.Grid``. Behind it messages become
phase requests to cohorts, and a cohort's events become replies.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Self

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fl_runtime.run.cohorts import flower_run_id
from fl_runtime.server.grid.flower_compat import FlowerRun, empty_run, make_error, name_message
from fl_runtime.server.grid.phase_policy import PhasePolicy
from fl_runtime.server.grid.phases import PhaseExecutor
from fl_runtime.server.grid.pushed import PushedMessages
from fl_runtime.server.grid.requests import Phase

SETTLE_SECONDS = 5.0
"""How long the end of an app waits for what it has pushed."""
See = Callable[[Sequence[Message], Sequence[Message]], None]
"""Gets the messages of one call of the app, and their replies."""


class IoTGrid(Grid):  # type: ignore[misc]  # flwr is untyped here
    """A grid whose nodes are the devices of one run's cohorts."""

    def __init__(self, phases: PhaseExecutor) -> None:
        self.phases = phases
        self._policy = PhasePolicy(available=phases.members)
        self._run = empty_run(flower_run_id(phases.spec.run))
        self._pushed = PushedMessages()
        self._seen: See | None = None

    def under(self, policy: PhasePolicy) -> Self:
        """The same grid with another policy for what is sent through it."""
        grid = copy.copy(self)  # shallow: phases and pushed messages stay shared
        grid._policy, grid._seen = policy, None
        return grid

    @contextlib.contextmanager
    def seen_by(self, see: See) -> Iterator[None]:
        """Tell ``see`` of what the app sends through this very grid, once it is answered."""
        self._seen = see
        try:
            yield
        finally:
            self._seen = None

    def set_run(self, run: FlowerRun) -> None:
        """Called by Flower's runtime."""
        self._run = run

    @property
    def run(self) -> FlowerRun:
        """Flower's description of this run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Deprecated in Flower, still used by older apps."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The devices that may be asked."""
        return [member.node_id for member in self._policy.available]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send, and return the messages' ids at once; :meth:`pull_messages` gives the replies."""
        batch, seconds = list(messages), self.phases.spec.phase_seconds
        split, unknown = _split(batch, self.phases)
        begun = [self.phases.begin(part, self._policy, seconds) for part in split]
        self._pushed.lost(unknown)
        for phase in begun:
            self._pushed.begin()
            call = partial(_carry_out_pushed, self.phases, phase, self._pushed)
            self.phases.concurrency.aside(call)
        return [message.metadata.message_id for message in batch]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies to pushed messages that have come, each once."""
        replies = self._pushed.take(message_ids)
        self._see((), ())
        return replies

    def settle(self) -> None:
        """The app has ended: what it pushed and did not wait for is over, or left alone."""
        self._pushed.settle(SETTLE_SECONDS)
        self._see((), ())

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send to devices and gather their replies; a silent device gives an error reply.

        ``timeout`` in seconds can only shorten the run's own time for a phase.
        """
        batch, limit = list(messages), self.phases.spec.phase_seconds
        seconds = min(timeout or limit, limit)
        split, replies = _split(batch, self.phases)
        begun = [self.phases.begin(part, self._policy, seconds) for part in split]
        if len(begun) == 1:
            replies += self.phases.carry_out(begun[0])
        else:
            for answers in self.phases.concurrency.each(
                self.phases.carry_out, begun, len(begun) or 1
            ):
                replies += answers
        self._see(batch, replies)
        return sorted(replies, key=lambda reply: reply.metadata.src_node_id)

    def _see(self, messages: Sequence[Message], replies: Sequence[Message]) -> None:
        """Tell of a call, and of the pushed messages that have been answered before it."""
        for exchange in [*self._pushed.ended(), (messages, replies)]:
            if self._seen is not None and exchange[0]:
                self._seen(*exchange)


def _carry_out_pushed(phases: PhaseExecutor, phase: Phase, pushed: PushedMessages) -> None:
    messages = list(phase.messages.values())
    try:
        replies = phases.carry_out(phase, pushed.add)
    except Exception as error:  # noqa: BLE001  # raised where the app pulls
        pushed.fail(error)
        return
    pushed.end(messages, replies)


def _split(
    messages: Sequence[Message], phases: PhaseExecutor
) -> tuple[list[list[Message]], list[Message]]:
    """The messages of each phase: one for each kind, whatever they carry, and further ones where a
    device gets several; and Flower's error replies to messages for nodes that do not exist.
    """
    known = {member.node_id for member in phases.members}
    split: dict[tuple[str, int], list[Message]] = {}
    times: collections.Counter[tuple[str, int]] = collections.Counter()
    unknown = []
    for message in messages:
        node, kind = message.metadata.dst_node_id, message.metadata.message_type
        if node in known:
            split.setdefault((kind, times[kind, node]), []).append(message)
            times[kind, node] += 1
        else:
            name_message(message, f"{phases.spec.run}.unknown.{uuid.uuid4().hex}")
            unknown.append(make_error(message, "not-sent", "Destination node is unavailable."))
    return list(split.values()), unknown
