"""IoT jobs: asked for, carried out one after the other, and answered with a status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from fakes.transport import MemoryTransport

from edge.agent.cloud_time import CloudTime
from edge.agent.jobs import DETAIL_LIMIT, Install, JobsClient
from edge.protocol.signed import SignedManifest
from edge.serving.model_store import Installed, ModelRefused

ACCEPTED = "$aws/things/d/jobs/start-next/accepted"
NOTIFIED = "$aws/things/d/jobs/notify-next"
DOCUMENT = msgspec.to_builtins(SignedManifest(manifest="m", signature="s", url="u"))


def a_job(number: int, document: object = DOCUMENT) -> bytes:
    return json.dumps(
        {"execution": {"jobId": f"j{number}", "jobDocument": document, "versionNumber": 1}}
    ).encode()


def with_jobs(
    install: Install, test: Callable[[JobsClient, MemoryTransport], Awaitable[None]]
) -> None:
    async def main() -> None:
        transport = MemoryTransport()
        jobs = JobsClient(transport, "d", install, CloudTime(float))
        running = asyncio.ensure_future(jobs.run())
        try:
            await test(jobs, transport)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


async def installs(signed: SignedManifest) -> Installed:
    return Installed(state="active", model_version="m/1", new=0.5)


async def refuses(signed: SignedManifest) -> Installed:
    raise ModelRefused("worse", "long " * DETAIL_LIMIT)


async def status(transport: MemoryTransport, number: int) -> dict:
    return json.loads((await transport.until(1, f"/jobs/j{number}/update"))[0])


def test_a_job_is_carried_out_and_the_next_one_asked_for() -> None:
    async def test(jobs: JobsClient, transport: MemoryTransport) -> None:
        await transport.until(1, "/start-next")
        assert jobs.receive(ACCEPTED, a_job(1))
        assert await status(transport, 1) == {
            "status": "SUCCEEDED",
            "statusDetails": {"state": "active", "model_version": "m/1", "new": "0.5"},
        }
        await transport.until(2, "/start-next")
        jobs.receive(ACCEPTED, a_job(2, {"operation": "reboot"}))
        assert (await status(transport, 2))["status"] == "REJECTED"

    with_jobs(installs, test)


def test_a_refusal_is_a_failed_job_with_its_reason_cut_to_what_aws_takes() -> None:
    async def test(jobs: JobsClient, transport: MemoryTransport) -> None:
        await transport.until(1, "/start-next")
        jobs.receive(ACCEPTED, a_job(1))
        answer = await status(transport, 1)
        assert (answer["status"], answer["statusDetails"]["code"]) == ("FAILED", "worse")
        assert len(answer["statusDetails"]["reason"]) == DETAIL_LIMIT

    with_jobs(refuses, test)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("\u202e" + "\N{PILE OF POO}" * 5000), OSError(28, "No space left"), KeyError()],
)
def test_whatever_fails_in_a_job_it_is_answered_and_the_next_one_is_asked_for(
    error: Exception,
) -> None:
    async def fails(signed: SignedManifest) -> Installed:
        raise error

    async def test(jobs: JobsClient, transport: MemoryTransport) -> None:
        await transport.until(1, "/start-next")
        jobs.receive(ACCEPTED, a_job(1))
        answer = await status(transport, 1)
        assert (answer["status"], answer["statusDetails"]["code"]) == ("FAILED", "device-error")
        assert answer["statusDetails"]["reason"].startswith(type(error).__name__)
        assert len(answer["statusDetails"]["reason"].encode()) <= DETAIL_LIMIT
        await transport.until(2, "/start-next")

    with_jobs(fails, test)


def test_a_notification_asks_again_and_noise_and_floods_do_no_harm() -> None:
    async def test(jobs: JobsClient, transport: MemoryTransport) -> None:
        await transport.until(1, "/start-next")
        jobs.receive(ACCEPTED, b"\xff")
        jobs.receive(NOTIFIED, b"{}")
        await transport.until(2, "/start-next")
        for _ in range(20):
            jobs.receive(ACCEPTED, b'{"timestamp": 1}')

    with_jobs(installs, test)


def test_messages_on_other_topics_are_left_to_others() -> None:
    jobs = JobsClient(MemoryTransport(), "d", installs, CloudTime(float))
    assert not jobs.receive("fl/f/d/command", b"")
    assert jobs.topics == [NOTIFIED, ACCEPTED]
