"""AWS IoT Jobs: asks for the device's next job, carries it out, and reports the result.

A job's document is a signed manifest; carrying it out installs a model.
https://docs.aws.amazon.com/iot/latest/developerguide/jobs-mqtt-api.html
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec

from edge.agent.cloud_time import CloudTime
from edge.logs import event
from edge.protocol.errors import ProtocolError
from edge.protocol.signed import SignedManifest
from edge.protocol.text import convert, parse_json, printable
from edge.serving.model_store import Installed, ModelRefused
from edge.transports import Transport, TransportError

logger = logging.getLogger(__name__)

ASK_SECONDS = 3600.0
"""The device also asks without a notification, since one may be lost."""
ANSWER_SECONDS = 10.0
DETAIL_LIMIT = 1024
"""Bytes of one status detail. AWS IoT counts characters, and a message over Greengrass has 4 KB
(https://docs.aws.amazon.com/iot/latest/apireference/API_JobExecution.html).
"""
_WAITING = 4

Install = Callable[[SignedManifest], Awaitable[Installed]]
"""Installs a model; raises ModelRefused."""


class JobExecution(msgspec.Struct, rename="camel"):
    """A job for this device."""

    job_id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
    job_document: dict[str, Any] = {}


class _StartNextAnswer(msgspec.Struct):
    """``start-next/accepted``: without an execution when there is no job."""

    execution: JobExecution | None = None
    timestamp: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """When AWS IoT sent it."""


def parse_answer(payload: bytes) -> tuple[JobExecution | None, float]:
    """Parse ``start-next/accepted``: the job or None, and AWS IoT's time. Raises ProtocolError."""
    answer: _StartNextAnswer = parse_json(payload, _StartNextAnswer, "The answer")
    return answer.execution, answer.timestamp


class JobsClient:
    """Carries out the device's jobs, one after the other."""

    def __init__(
        self, transport: Transport, device: str, install: Install, cloud_time: CloudTime
    ) -> None:
        self._transport = transport
        self._cloud_time = cloud_time
        self._base = f"$aws/things/{device}/jobs"
        self._install = install
        self._answers: asyncio.Queue[bytes] = asyncio.Queue(_WAITING)
        self._notified = asyncio.Event()

    @property
    def topics(self) -> list[str]:
        """Topics that the device must subscribe to."""
        return [f"{self._base}/notify-next", f"{self._base}/start-next/accepted"]

    def receive(self, source: str, payload: bytes) -> bool:
        """Accept a message; False when it is not about jobs. Must not block."""
        notification, answer = self.topics
        if source == notification:
            self._notified.set()
        elif source == answer:
            with contextlib.suppress(asyncio.QueueFull):  # a flood; the device asks again
                self._answers.put_nowait(payload)
        else:
            return False
        return True

    async def run(self) -> None:
        """Carry out jobs until cancelled."""
        while True:
            # Before asking: a notification that comes from now on is about a later job.
            self._notified.clear()
            try:
                while (execution := await self._next()) is not None:
                    await self._carry_out(execution)
            except (TransportError, TimeoutError) as error:
                event(logger, "jobs-wait", logging.WARNING, reason=str(error) or "no answer")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ASK_SECONDS):
                    await self._notified.wait()

    async def _next(self) -> JobExecution | None:
        await self._transport.publish(f"{self._base}/start-next", b"{}")
        # Not wait_for: before Python 3.12 it loses a cancellation that meets an arriving answer.
        async with asyncio.timeout(ANSWER_SECONDS):
            payload = await self._answers.get()
        try:
            execution, timestamp = parse_answer(payload)
            self._cloud_time.answered(timestamp)
            return execution
        except ProtocolError as error:
            event(logger, "job-refused", logging.WARNING, reason=str(error))
            return None

    async def _carry_out(self, execution: JobExecution) -> None:
        try:
            document = convert(execution.job_document, SignedManifest, "The job's document")
            done = await self._install(document)
            status, details = "SUCCEEDED", _details(done)
        except ProtocolError as error:
            status, details = "REJECTED", {"code": error.code, "reason": str(error)}
        except ModelRefused as error:
            status, details = "FAILED", {"code": error.code, "reason": str(error)}
        except Exception as error:  # noqa: BLE001  # the rollout learns of a fault of ours, too
            reason = f"{type(error).__name__}: {error}"
            status, details = "FAILED", {"code": "device-error", "reason": reason}
        event(logger, "job-done", job=execution.job_id, status=status, details=details)
        body = {
            "status": status,
            "statusDetails": {key: _cut(value) for key, value in details.items()},
        }
        await self._transport.publish(
            f"{self._base}/{execution.job_id}/update", msgspec.json.encode(body)
        )


def _details(done: Installed) -> dict[str, str]:
    fields = msgspec.structs.asdict(done).items()
    return {key: str(value) for key, value in fields if value is not None}


def _cut(detail: str) -> str:
    """Return a detail that a message can carry, whatever text an app or an error gave."""
    return printable(detail, DETAIL_LIMIT).encode()[:DETAIL_LIMIT].decode(errors="ignore")
