"""An address that expired while a device trained is replaced by that of the repeated command."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from botocore.credentials import RefreshableCredentials
from fakes.clock import Clock
from fakes.devices import Device, a_command, instant, with_device
from fakes.keys import claim_of, sealed
from fakes.workers import InstantWorkers

from edge.agent import renewal
from edge.agent.renewal import SHORTEST_SECONDS, Renewals
from edge.object_transfer import ObjectError
from edge.protocol.messages import Command, ObjectRef
from edge.training.worker import WorkerJob, WorkerResult

EXPIRED = ObjectError("upload-failed", "The address has expired.", refused=True)


class Store:
    """Takes uploads at addresses that have not expired."""

    def __init__(self, *expired: str) -> None:
        self.expired, self.asked = expired, []

    async def put(self, at: Command) -> str:
        self.asked.append(at.upload_url)
        if at.upload_url in self.expired:
            raise EXPIRED
        return at.upload_url


def under_way(age: float) -> Renewals:
    """The addresses of a command that came so many seconds ago."""
    clock = Clock()
    renewals = Renewals(clock)
    renewals.begin(a_command(upload_url="old"), clock() - age)
    return renewals


def test_an_expired_address_waits_for_the_repeated_commands() -> None:
    store, renewals = Store("old"), under_way(age=SHORTEST_SECONDS)

    async def test() -> str:
        async def repeat() -> None:
            await asyncio.sleep(0.01)
            assert not renewals.renew(a_command("another", upload_url="foreign"))
            assert renewals.renew(a_command(upload_url="new"))

        _, where = await asyncio.gather(repeat(), renewals.with_address(store.put, lambda: 5.0))
        return where

    assert asyncio.run(test()) == "new"
    assert store.asked == ["old", "new"]


def test_a_repetition_that_came_before_is_used_without_a_wait() -> None:
    store, renewals = Store("old"), under_way(age=9_000.0)
    assert renewals.renew(a_command(upload_url="new"))
    assert asyncio.run(renewals.with_address(store.put, lambda: 5.0)) == "new"
    assert store.asked == ["new"]


@pytest.mark.parametrize(("age", "left"), [(SHORTEST_SECONDS - 1, 5.0), (SHORTEST_SECONDS, 0.01)])
def test_a_young_address_has_not_expired_and_without_a_repetition_the_transfer_fails(
    age: float, left: float
) -> None:
    store, renewals = Store("old"), under_way(age)
    with pytest.raises(ObjectError, match="has expired"):
        asyncio.run(asyncio.wait_for(renewals.with_address(store.put, lambda: left), 2.0))
    assert store.asked == ["old"]


def test_only_the_same_object_moves() -> None:
    renewals = Renewals(Clock())
    renewals.begin(a_command(arrays=ObjectRef("a" * 64, 1, "old")), 0.0)

    async def where(at: Command) -> str:
        assert at.arrays is not None
        return at.arrays.url

    for digest, found in (("b", "old"), ("a", "new")):
        assert renewals.renew(a_command(arrays=ObjectRef(digest * 64, 1, "new")))
        assert asyncio.run(renewals.with_address(where, lambda: 1.0)) == found


def test_credentials_that_sign_last_longer_than_we_take_an_address_to_last() -> None:
    assert RefreshableCredentials._mandatory_refresh_timeout > SHORTEST_SECONDS


class SlowWorkers(InstantWorkers):
    """Train until they are told that it is done."""

    def __init__(self) -> None:
        super().__init__(instant().answer)
        self.begun, self.done = asyncio.Event(), asyncio.Event()

    async def run(self, job: WorkerJob, seconds: float) -> WorkerResult:
        self.begun.set()
        await self.done.wait()
        Path(job.update_path).write_bytes(b"update")
        result = await super().run(job, seconds)
        return WorkerResult(**{**_fields(result), "update": ObjectRef("a" * 64, 6)})


def _fields(result: WorkerResult) -> dict[str, object]:
    return {name: getattr(result, name) for name in result.__struct_fields__}


@pytest.mark.parametrize("by_claim", [False, True])
def test_a_device_that_trains_for_hours_uploads_to_the_address_of_the_repeated_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_claim: bool
) -> None:
    """And trains once: a repetition that comes by claim used to wait its turn, and train again."""
    monkeypatch.setattr(renewal, "SHORTEST_SECONDS", 0.0)
    workers = SlowWorkers()

    async def test(device: Device) -> None:
        upload = device.objects.put

        async def put(url: str, file: Path, seconds: float) -> None:
            if url != "new":
                raise EXPIRED
            await upload(url, file, seconds)

        monkeypatch.setattr(device.objects, "put", put)
        device.deliver(sealed(a_command(upload_url="old")))
        await workers.begun.wait()
        again = a_command(upload_url="new")
        claim, device.objects.data["claim"] = claim_of(again, "claim")
        device.deliver(sealed(again, claim) if by_claim else sealed(again))
        await asyncio.sleep(0.05)
        workers.done.set()
        (reply,) = await device.replies(1)
        assert reply.status == "ok"
        assert device.objects.uploads == {"new": b"update"}
        await asyncio.sleep(0.05)

    with_device(tmp_path, workers, test)
    assert len(workers.jobs) == 1
