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
from edge.protocol.messages import (
    CLAIMED_LIMIT,
    Claim,
    Command,
    Reply,
    decode,
    decode_order,
    seal,
)
from edge.protocol.text import printable

logger = logging.getLogger(__name__)

WAITING_COMMANDS = 4
"""Commands that wait while one runs. More are a flood: the newest are dropped."""
WAITING_CLAIMS = 4
"""Claims that wait while others are fetched, likewise."""
CLAIM_FETCHERS = 2
"""Claims fetched at once. Commands that need no fetching never wait for them."""
CLAIM_SECONDS = 30.0
"""Longest fetch of a claim: a command has at most 1 MiB."""


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
        self._queue: asyncio.Queue[tuple[Command, float]] = asyncio.Queue(WAITING_COMMANDS)
        self._claims: asyncio.Queue[tuple[Claim, float]] = asyncio.Queue(WAITING_CLAIMS)
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
            order = decode_order(payload)
            # With the time of receipt: waiting in the queue uses up the command's seconds.
            received = self._monotonic()
            if isinstance(order, Claim):
                self._claims.put_nowait((order, received))
            else:
                self._queue.put_nowait((order, received))
        except ProtocolError as error:
            _refused(error.code, str(error))
        except asyncio.QueueFull:
            _refused("flood", "too many commands at once")
        return True

    async def run(self) -> None:
        """Answer commands until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._answer_all())
            for _ in range(CLAIM_FETCHERS):
                tasks.create_task(self._fetch_all())

    async def _answer_all(self) -> None:
        while True:
            command, received = await self._queue.get()
            try:
                await self._answer(command, received)
            except Exception as error:  # noqa: BLE001  # whatever it is, the next command comes
                _failed(error, message=command.message_id)

    async def _fetch_all(self) -> None:
        while True:
            claim, received = await self._claims.get()
            try:
                command = await self._fetch(claim)
                if command is not None:
                    self._queue.put_nowait((command, received))
            except asyncio.QueueFull:
                _refused("flood", "too many commands at once")
            except Exception as error:  # noqa: BLE001  # as above
                _failed(error, claim=claim.command.digest)

    async def _answer(self, command: Command, received: float) -> None:
        payload = self._outbox.earlier(command.message_id)
        if payload is None:
            payload = _sealed(await self._carry_out(command, received), command)
        await self._outbox.send(command.message_id, payload)

    async def _carry_out(self, command: Command, received: float) -> Reply:
        self._busy = True
        try:
            async with self._worker:
                return await self._execution.answer(command, received)
        finally:
            self._busy = False

    async def _fetch(self, claim: Claim) -> Command | None:
        """Fetch the command behind a claim check. Without it, there is nobody to reply to."""
        try:
            seconds = min(claim.seconds, CLAIM_SECONDS)
            path, _ = await self._objects.fetch(claim.command, seconds)
            return decode(path.read_bytes(), Command, CLAIMED_LIMIT)
        except (ObjectError, ProtocolError, OSError) as error:
            _refused("claim", str(error))
            return None


def _sealed(reply: Reply, command: Command) -> bytes:
    """The reply as it is published: without what it says where that is too long."""
    try:
        return seal(reply, command.reply_key)
    except ProtocolError as error:
        short = Reply(
            run=command.run,
            phase=command.phase,
            message_id=command.message_id,
            status="error",
            code="too-long",
            reason=str(error),
        )
        return seal(short, command.reply_key)


def _failed(error: Exception, **fields: str) -> None:
    reason = f"{type(error).__name__}: {error}"
    event(logger, "command-lost", logging.ERROR, reason=printable(reason), **fields)


def _refused(code: str, reason: str) -> None:
    event(logger, "command-refused", logging.WARNING, code=code, reason=reason)
