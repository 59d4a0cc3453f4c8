"""New addresses for the command that is being carried out, from its repetitions.

A presigned address ends with the credentials that signed it, which for a task are its role's: hours
at most, and at least ten minutes, whatever the phase allows. The cloud repeats a command that is
not answered, signed anew and with new addresses.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from edge.logs import event
from edge.object_transfer import ObjectError
from edge.protocol.messages import Command, ObjectRef

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

SHORTEST_SECONDS = 540.0
"""An address that is refused when it is younger than this has not expired. Botocore signs with
credentials that have ten minutes left (``RefreshableCredentials._mandatory_refresh_timeout``).
"""
WAIT_SECONDS = 660.0
"""How long to wait for the next repetition: the cloud repeats a command at least every ten
minutes.
"""


class Renewals:
    """The addresses of the one command that is under way."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._command: Command | None = None
        self._since = 0.0
        self._renewed = asyncio.Event()

    def begin(self, command: Command, received: float) -> None:
        """A command is under way, whose addresses came at ``received``."""
        self._command, self._since = command, received
        self._renewed = asyncio.Event()

    def end(self) -> None:
        """It is under way no more."""
        self._command = None

    def is_for(self, message_id: str) -> bool:
        """Whether the command under way has this message id."""
        return self._command is not None and self._command.message_id == message_id

    def renew(self, again: Command) -> bool:
        """Take the addresses of a repetition; False when it repeats another command."""
        command = self._command
        if command is None or (again.message_id, again.run, again.phase) != (
            command.message_id,
            command.run,
            command.phase,
        ):
            return False
        self._command = msgspec.structs.replace(
            command,
            upload_url=again.upload_url,
            arrays=_moved(command.arrays, again.arrays),
            content_ref=_moved(command.content_ref, again.content_ref),
        )
        self._since = self._monotonic()
        self._renewed.set()
        return True

    async def with_address(
        self, transfer: Callable[[Command], Awaitable[Result]], seconds: Callable[[], float]
    ) -> Result:
        """Transfer by the command's addresses; by those of its next repetition where they have
        expired. ``seconds``: what is left for it.

        Raises:
            ObjectError: The transfer failed otherwise, or no repetition came.

        """
        command = self._under_way()
        try:
            return await transfer(command)
        except ObjectError as error:
            if not error.refused or self._monotonic() - self._since < SHORTEST_SECONDS:
                raise
            event(logger, "address-expired", logging.WARNING, run=command.run, phase=command.phase)
            await self._next(command, seconds(), error)
        return await transfer(self._under_way())

    async def _next(self, used: Command, seconds: float, error: ObjectError) -> None:
        """Wait until the addresses are other than those that were used."""
        if self._under_way() is not used:
            return
        self._renewed.clear()
        try:
            await asyncio.wait_for(self._renewed.wait(), min(seconds, WAIT_SECONDS))
        except TimeoutError:
            raise error from None

    def _under_way(self) -> Command:
        if self._command is None:
            raise ObjectError("device-error", "No command is under way.")
        return self._command


def _moved(ref: ObjectRef | None, again: ObjectRef | None) -> ObjectRef | None:
    """The same object at the repetition's address."""
    if ref is None or again is None or again.digest != ref.digest:
        return ref
    return again
