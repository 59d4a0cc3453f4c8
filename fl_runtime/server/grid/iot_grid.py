"""``IoTGrid``: Flower's grid over a fleet of AWS IoT devices.

``Strategy`` and ``ServerApp`` see an ordinary ``flwr.serverapp.Grid``. Behind it messages become
phase requests to cohorts, and a cohort's events become replies.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Self

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fl_runtime.run.cohorts import flower_run_id
from fl_runtime.server.grid.flower_compat import FlowerRun, empty_run
from fl_runtime.server.grid.phase_policy import PhasePolicy
from fl_runtime.server.grid.phases import PhaseExecutor


class IoTGrid(Grid):  # type: ignore[misc]  # flwr is untyped here
    """A grid whose nodes are the devices of one run's cohorts."""

    def __init__(self, phases: PhaseExecutor) -> None:
        self.phases = phases
        self._policy = PhasePolicy(available=phases.members)
        self._run = empty_run(flower_run_id(phases.spec.run))
        self._pulled: dict[str, Message] = {}

    def under(self, policy: PhasePolicy) -> Self:
        """The same grid with another policy for what is sent through it."""
        grid = copy.copy(self)  # shallow: phases and pulled replies stay shared
        grid._policy = policy
        return grid

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
        """Send and wait: the replies are ready when this returns."""
        batch = list(messages)
        for reply in self.send_and_receive(batch):
            self._pulled[reply.metadata.reply_to_message_id] = reply
        return [message.metadata.message_id for message in batch]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies to pushed messages, each once."""
        return [
            self._pulled.pop(message_id) for message_id in message_ids if message_id in self._pulled
        ]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send to devices and gather their replies; a silent device gives an error reply.

        ``timeout`` in seconds can only shorten the run's own time for a phase.
        """
        # Flower's strategies address one RecordDict to all devices: such messages are one phase,
        # and their content is uploaded once.
        batches: dict[tuple[int, str], list[Message]] = {}
        for message in messages:
            key = (id(message.content), message.metadata.message_type)
            batches.setdefault(key, []).append(message)
        limit = self.phases.spec.phase_seconds
        seconds = min(timeout or limit, limit)
        return [
            reply
            for batch in batches.values()
            for reply in self.phases.run(batch, self._policy, seconds)
        ]
