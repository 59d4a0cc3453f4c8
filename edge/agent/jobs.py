"""A device's part in AWS IoT Jobs: it asks for the next job, carries it out, and says how it went.

https://docs.aws.amazon.com/iot/latest/developerguide/jobs-mqtt-api.html
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from edge.logs import event
from edge.protocol.signed import SignedManifest
from edge.serving.model_store import Installed, ModelRefused
from edge.transports import Transport, TransportError

logger = logging.getLogger(__name__)

ASK_SECONDS = 3600.0
"""A notification may be lost: the device asks by itself once in a while, and whenever it connects.
"""
DETAIL_LIMIT = 1024
"""Characters of a job execution's status detail."""


class Execution(msgspec.Struct, rename="camel"):
    """A job for this device."""

    job_id: str
    job_document: dict[str, Any] = {}
    execution_number: int = 1


class _Answer(msgspec.Struct):
    """``start-next/accepted`` (with the execution, or without when there is none) and ``notify-
    next``.
    """

    execution: Execution | None = None


Install = Callable[[SignedManifest], Awaitable[Installed]]


class Jobs:
    """Runs the device's jobs, one after the other."""

    def __init__(self, transport: Transport, device: str, install: Install) -> None:
        self._transport = transport
        self._base = f"$aws/things/{device}/jobs"
        self._install = install
        self._answers: asyncio.Queue[bytes] = asyncio.Queue(4)
        self._news = asyncio.Event()

    @property
    def topics(self) -> list[str]:
        """What the device must hear."""
        return [f"{self._base}/notify-next", f"{self._base}/start-next/accepted"]

    def receive(self, source: str, payload: bytes) -> bool:
        """Take a message; False when it is not about jobs. Must not block."""
        if source == f"{self._base}/notify-next":
            self._news.set()
        elif source == f"{self._base}/start-next/accepted":
            if not self._answers.full():
                self._answers.put_nowait(payload)
        else:
            return False
        return True

    def ask_again(self) -> None:
        """Look for jobs now."""
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._news.clear()
            try:
                while (execution := await self._next()) is not None:
                    await self._carry_out(execution)
            except (TransportError, TimeoutError) as error:
                event(logger, "jobs-wait", logging.WARNING, reason=str(error) or "no answer")
            try:
                await asyncio.wait_for(self._news.wait(), ASK_SECONDS)
            except TimeoutError:
                continue

    async def _next(self) -> Execution | None:
        await self._transport.publish(f"{self._base}/start-next", b"{}")
        payload = await asyncio.wait_for(self._answers.get(), 10.0)
        try:
            return msgspec.json.decode(payload, type=_Answer).execution
        except msgspec.DecodeError as error:
            event(logger, "job-refused", logging.WARNING, reason=str(error))
            return None

    async def _carry_out(self, execution: Execution) -> None:
        try:
            done = await self._install(msgspec.convert(execution.job_document, SignedManifest))
            status, details = (
                "SUCCEEDED",
                {
                    key: str(value)
                    for key, value in msgspec.structs.asdict(done).items()
                    if value is not None
                },
            )
        except msgspec.ValidationError as error:
            status, details = "REJECTED", {"code": "malformed", "reason": str(error)}
        except ModelRefused as error:
            status, details = "FAILED", {"code": error.code, "reason": str(error)}
        event(logger, "job-done", job=execution.job_id, status=status, details=details)
        body = {
            "status": status,
            "statusDetails": {key: value[:DETAIL_LIMIT] for key, value in details.items()},
        }
        await self._transport.publish(
            f"{self._base}/{execution.job_id}/update", msgspec.json.encode(body)
        )
