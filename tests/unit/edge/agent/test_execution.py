"""What a device runs, and the reason that it gives when it does not."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest
from fakes.clock import Clock
from fakes.devices import Device, a_command, device_config, instant, with_device
from fakes.keys import Key, a_grant, sealed
from fakes.objects import FileObjects
from fakes.workers import InstantWorkers

from edge.agent.execution import CommandExecution
from edge.agent.order_gate import GrantedCommand
from edge.protocol.messages import Command, ObjectRef, Timing
from edge.protocol.orders import content_digest
from edge.protocol.records import digest
from edge.training.worker import WorkerJob, WorkerResult
from fl_runtime.run.order_keys import new_key_pair


def granted(command: Command) -> GrantedCommand:
    return GrantedCommand(command, a_grant(command))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"app": "b" * 64}, "app-missing"),
        ({"seconds": 0.0}, "deadline"),
        ({"arrays": ObjectRef("c" * 64, 5, "nowhere")}, "download-failed"),
        ({"content": "not json"}, "malformed"),
        ({"run_config": "[]"}, "malformed"),
    ],
)
def test_what_cannot_be_run_is_answered_with_the_reason(
    tmp_path: Path, changes: dict, code: str
) -> None:
    workers = instant()

    async def test(device: Device) -> None:
        device.deliver(sealed(a_command(**changes)))
        (reply,) = await device.replies(1)
        assert (reply.status, reply.code) == ("error", code)
        assert reply.reason

    with_device(tmp_path, workers, test)
    assert workers.jobs == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"run": "run-2"}, ""),
        ({"app": "b" * 64}, ""),
        ({"kind": "query"}, ""),
        ({"arrays": "d" * 64}, ""),
        ({"fleet": "g"}, ""),
        ({"expires": 1}, "outdated"),
        ({"content": content_digest("{}", "{}")}, "foreign"),
        ({"content": content_digest(a_command().content, '{"lr": 9}')}, "foreign"),
    ],
)
def test_what_the_grant_does_not_hold_trains_nothing(
    tmp_path: Path, changes: dict, code: str
) -> None:
    workers = instant()

    async def test(device: Device) -> None:
        device.deliver(sealed(a_command(), **changes))
        device.deliver(sealed(a_command("m2")))
        replies = await device.replies(2 if code else 1)
        assert sorted((reply.message_id, reply.code) for reply in replies) == [
            *([("m1", code)] if code else []),
            ("m2", ""),
        ]

    with_device(tmp_path, workers, test)
    assert [job.message_id for job in workers.jobs] == ["m2"]


@pytest.mark.parametrize(
    "payload",
    [
        sealed(a_command()).replace(b'"up"', b'"elsewhere"'),
        sealed(a_command()).replace(b'"seconds":60.0', b'"seconds":90.0'),
        sealed(a_command(), private=new_key_pair()[0]),
        sealed(a_command(), key=Key()),
        sealed(a_command()).replace(b'"grant_signature":"', b'"grant_signature":"!'),
    ],
)
def test_what_was_not_signed_as_it_is_trains_nothing(tmp_path: Path, payload: bytes) -> None:
    workers = instant()

    async def test(device: Device) -> None:
        device.deliver(payload)
        (reply,) = await device.replies(1)
        assert (reply.status, reply.code) == ("error", "unsigned")

    with_device(tmp_path, workers, test)
    assert workers.jobs == []


def test_an_order_to_another_device_is_not_answered(tmp_path: Path) -> None:
    async def test(device: Device) -> None:
        device.deliver(sealed(a_command(device="d1")))
        device.deliver(sealed(a_command("m2")))
        assert [reply.message_id for reply in await device.replies(1)] == ["m2"]

    with_device(tmp_path, instant(), test)


def test_a_device_without_keys_believes_nobody(tmp_path: Path) -> None:
    async def test(device: Device) -> None:
        device.deliver(sealed(a_command()))
        assert "no key for commands" in (await device.replies(1))[0].reason

    with_device(tmp_path, instant(), test, keys=False)


def test_an_answer_says_how_long_each_step_took_and_what_was_downloaded(tmp_path: Path) -> None:
    """By a clock that only the steps move: a fetch takes 2 s, the app 5 s."""
    clock = Clock()

    class SlowObjects(FileObjects):
        async def fetch(self, ref: ObjectRef, seconds: float) -> tuple[Path, int]:
            clock.sleep(2)
            return await super().fetch(ref, seconds)

    def work(job: WorkerJob) -> WorkerResult:
        clock.sleep(5)
        return WorkerResult(ok=True, content="{}")

    device = Device(tmp_path, instant())
    objects = SlowObjects(device.config.cache_dir)
    objects.data["url"] = b"weights"
    execution = CommandExecution(
        device.config,
        objects,
        InstantWorkers(work),
        clock,
    )
    command = a_command(arrays=ObjectRef(digest(b"weights"), 7, "url"))
    reply = asyncio.run(execution.answer(granted(command), 0.0))
    assert (reply.status, reply.timing, reply.bytes_down) == ("ok", Timing(2.0, 5.0, 0.0), 7)
    late = asyncio.run(execution.answer(granted(a_command(seconds=5.0)), 0.0))
    assert late.code == "deadline", "seconds count from the receipt"


def test_a_full_disk_is_a_reason_of_its_own(tmp_path: Path) -> None:
    class FullDisk(FileObjects):
        async def fetch(self, ref: ObjectRef, seconds: float) -> tuple[Path, int]:
            raise OSError(errno.ENOSPC, "No space left on device")

    device = Device(tmp_path, instant())
    execution = CommandExecution(
        device.config,
        FullDisk(tmp_path),
        instant(),
        Clock(),
    )
    command = a_command(arrays=ObjectRef("c" * 64, 7, "url"))
    assert asyncio.run(execution.answer(granted(command), 0.0)).code == "disk-full"


def test_weights_beyond_the_devices_memory_are_refused_before_they_are_fetched(
    tmp_path: Path,
) -> None:
    """Not a download of half a gigabyte, and then a worker that the kernel kills."""
    amounts = [600, 200, 200, 200]
    command = a_command(arrays=ObjectRef("c" * 64, 500 * 2**20, "nowhere"))

    async def answers(memory: list[int]) -> str:
        config = device_config(tmp_path)
        (config.apps_dir / command.app).mkdir(parents=True, exist_ok=True)
        execution = CommandExecution(
            config, FileObjects(tmp_path), instant(), Clock(), memory=lambda: memory.pop(0)
        )
        reply = await execution.answer(granted(command), 0.0)
        return f"{reply.code}: {reply.reason}"

    refused = asyncio.run(answers(amounts))
    assert refused.startswith("out-of-memory: the weights take 500 MiB")
    assert "this device has 600 MiB" in refused
    for enough in ([1000, 200], [0, 0]):
        assert asyncio.run(answers(enough)).startswith("download-failed")
