"""The command loop: takes commands one after the other, and answers each exactly once.

A command that is repeated gets the same reply again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from edge.agent.execution import CommandExecution
from edge.agent.spool import Outbox
from edge.logs import event
from edge.object_transfer import ObjectError, Objects
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import CLAIMED_LIMIT, Claim, Command, decode, decode_order, seal

logger = logging.getLogger(__name__)

WAITING_COMMANDS = 4
"""Commands that wait while one runs. More are a flood: the newest are dropped."""


class CommandLoop:
    """Answers the commands of one topic.

    Args:
        topic: The device's command topic.
        execution: Carries out a command.
        objects: Where a command is fetched from that came by claim check.
        outbox: Sends replies, and remembers them.
        worker: Held while the worker is in use: it runs one job at a time.
        monotonic: Seconds, including suspend.

    """

    def __init__(
        self,
        topic: str,
        execution: CommandExecution,
        objects: Objects,
        outbox: Outbox,
        worker: asyncio.Lock,
        monotonic: Callable[[], float],
    ) -> None:
        self._topic = topic
        self._execution = execution
        self._objects = objects
        self._outbox = outbox
        self._worker = worker
        self._monotonic = monotonic
        self._queue: asyncio.Queue[tuple[Command | Claim, float]] = asyncio.Queue(WAITING_COMMANDS)
        self._busy = False

    @property
    def topics(self) -> list[str]:
        """Topics that the device must subscribe to."""
        return [self._topic]

    def is_busy(self) -> bool:
        """Whether a command is being carried out."""
        return self._busy

    def is_idle(self) -> bool:
        """Whether no command is being carried out or waits."""
        return not self._busy and self._queue.empty()

    def receive(self, source: str, payload: bytes) -> bool:
        """Accept a message; False when it is not a command. Must not block."""
        if source != self._topic:
            return False
        try:
            # With the time of receipt: waiting in the queue uses up the command's seconds.
            self._queue.put_nowait((decode_order(payload), self._monotonic()))
        except ProtocolError as error:
            _refused(error.code, str(error))
        except asyncio.QueueFull:
            _refused("flood", "too many commands at once")
        return True

    async def run(self) -> None:
        """Answer commands until cancelled."""
        while True:
            order, received = await self._queue.get()
            command = await self._fetch(order) if isinstance(order, Claim) else order
            if command is not None:
                await self._answer(command, received)

    async def _answer(self, command: Command, received: float) -> None:
        payload = self._outbox.earlier(command.message_id)
        if payload is None:
            self._busy = True
            async with self._worker:
                reply = await self._execution.answer(command, received)
            self._busy = False
            payload = seal(reply, command.reply_key)
        await self._outbox.send(command.message_id, payload)

    async def _fetch(self, claim: Claim) -> Command | None:
        """Fetch the command behind a claim check. Without it, there is nobody to reply to."""
        try:
            path, _ = await self._objects.fetch(claim.command, claim.seconds)
            return decode(path.read_bytes(), Command, CLAIMED_LIMIT)
        except (ObjectError, ProtocolError, OSError) as error:
            _refused("claim", str(error))
            return None


def _refused(code: str, reason: str) -> None:
    event(logger, "command-refused", logging.WARNING, code=code, reason=reason)
