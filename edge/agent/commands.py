"""The command loop: takes commands one after the other, and answers each exactly once.

A command that is repeated gets the same reply again. One that is not signed is refused before it
takes a place in the queue, and nothing is fetched for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from edge.agent.execution import CommandExecution
from edge.agent.order_gate import GrantedClaim, GrantedCommand, OrderGate, refusal
from edge.agent.spool import Outbox
from edge.files import written
from edge.logs import event
from edge.object_transfer import ObjectError, Objects
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import Claim, Command, Reply, seal
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


@dataclass(frozen=True)
class _Waiting:
    granted: GrantedCommand
    received: float
    admitted: bool = False
    """Whether it was noted as begun already, by its claim."""


class CommandLoop:
    """Answers the commands of one topic.

    Args:
        topic: The device's command topic.
        gate: Lets in what is signed, and new.
        execution: Carries out a command.
        objects: Where a command is fetched from that came by claim check.
        outbox: Sends replies, and remembers them.
        worker: Held while the worker is in use: it runs one job at a time.
        monotonic: Seconds, including suspend.

    """

    def __init__(
        self,
        topic: str,
        gate: OrderGate,
        execution: CommandExecution,
        objects: Objects,
        outbox: Outbox,
        worker: asyncio.Lock,
        monotonic: Callable[[], float],
    ) -> None:
        self._topic = topic
        self._gate = gate
        self._execution = execution
        self._objects = objects
        self._outbox = outbox
        self._worker = worker
        self._monotonic = monotonic
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(WAITING_COMMANDS)
        self._claims: asyncio.Queue[tuple[GrantedClaim | GrantedCommand, float]] = asyncio.Queue(
            WAITING_CLAIMS
        )
        self._refusals: asyncio.Queue[bytes] = asyncio.Queue(1)
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
            order = self._gate.open(payload)
            # With the time of receipt: waiting in the queue uses up the command's seconds.
            received = self._monotonic()
            # A repetition of the command under way brings it new addresses: it does not wait.
            if isinstance(order, GrantedClaim) or self._execution.renewals.is_for(
                order.command.message_id
            ):
                self._claims.put_nowait((order, received))
            else:
                self._queue.put_nowait(_Waiting(order, received))
        except ProtocolError as error:
            _refused(error.code, str(error))
            reply = refusal(payload, error)
            if reply is not None and not self._refusals.full():
                self._refusals.put_nowait(reply)
        except asyncio.QueueFull:
            _refused("flood", "too many commands at once")
        return True

    async def run(self) -> None:
        """Answer commands until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._answer_all())
            tasks.create_task(self._refuse_all())
            for _ in range(CLAIM_FETCHERS):
                tasks.create_task(self._fetch_all())

    async def _answer_all(self) -> None:
        while True:
            waiting = await self._queue.get()
            command, self._busy = waiting.granted.command, True
            try:
                if await self._admit(command, admitted=waiting.admitted):
                    async with self._worker:
                        reply = await self._execution.answer(waiting.granted, waiting.received)
                    await self._outbox.send(command.message_id, _sealed(reply, command))
            except Exception as error:  # noqa: BLE001  # whatever it is, the next command comes
                _failed(error, message=command.message_id)
            finally:
                self._busy = False

    async def _refuse_all(self) -> None:
        while True:
            await self._outbox.send_once(await self._refusals.get())

    async def _fetch_all(self) -> None:
        while True:
            granted, received = await self._claims.get()
            order = granted.claim if isinstance(granted, GrantedClaim) else granted.command
            try:
                if not await self._admit(order):
                    continue
                found = await self._fetch(granted) if isinstance(granted, GrantedClaim) else granted
                if found is not None and not self._execution.renewals.renew(found.command):
                    self._queue.put_nowait(_Waiting(found, received, admitted=True))
            except asyncio.QueueFull:
                _refused("flood", "too many commands at once")
            except Exception as error:  # noqa: BLE001  # as above
                _failed(error, message=order.message_id)

    async def _admit(self, order: Command | Claim, *, admitted: bool = False) -> bool:
        """Whether an order is to be carried out: not when it is not new, or answered already.

        ``admitted``: its claim was, and may have waited while the same command was answered.
        """
        earlier = self._outbox.earlier(order.message_id)
        if earlier is not None:
            await self._outbox.send(order.message_id, earlier)
            return False
        if admitted:
            return True
        try:
            await written(self._gate.admit, order)
        except ProtocolError as error:
            _refused(error.code, str(error))
            return False
        return True

    async def _fetch(self, granted: GrantedClaim) -> GrantedCommand | None:
        """Fetch the command behind a claim check. Without it, there is nobody to reply to."""
        claim = granted.claim
        try:
            seconds = min(claim.seconds, CLAIM_SECONDS)
            path, _ = await self._objects.fetch(claim.command, seconds)
            return self._gate.claimed(granted, path.read_bytes())
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
