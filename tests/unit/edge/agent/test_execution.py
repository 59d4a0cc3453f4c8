"""What a device runs, and the reason that it gives when it does not."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import msgspec
import pytest
from fakes.clock import Clock
from fakes.devices import Device, a_command, instant, with_device
from fakes.keys import Key, signed
from fakes.objects import FileObjects
from fakes.workers import InstantWorkers

from edge.agent.execution import CommandExecution
from edge.identity.trust import Trust
from edge.protocol.messages import (
    ObjectRef,
    Timing,
    encode,
)
from edge.protocol.records import (
    Records,
    digest,
    encode_skeleton,
)
from edge.training.worker import WorkerJob, WorkerResult


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
        device.deliver(encode(a_command(**changes)))
        (reply,) = await device.replies(1)
        assert (reply.status, reply.code) == ("error", code)
        assert reply.reason

    with_device(tmp_path, workers, test)
    assert workers.jobs == []


@pytest.mark.parametrize(
    "change",
    [
        {"signature": ""},
        {"signature": "AAAA"},
        {"signature": "not base64!"},
        {"run": "run-2"},
        {"run_config": '{"learning-rate": 9}'},
        {"kind": "query"},
        {"arrays": ObjectRef("d" * 64, 5, "url")},
        {"content": encode_skeleton(Records(configs={"config": {"lr": 9.0}}))},
    ],
)
def test_a_command_that_its_server_did_not_sign_as_it_is_trains_nothing(
    tmp_path: Path, change: dict
) -> None:
    workers = instant()

    async def test(device: Device) -> None:
        device.deliver(encode(msgspec.structs.replace(a_command(), **change)))
        (reply,) = await device.replies(1)
        assert (reply.status, reply.code) == ("error", "unsigned")

    with_device(tmp_path, workers, test)
    assert workers.jobs == []


def test_a_server_with_another_key_is_not_believed(tmp_path: Path) -> None:
    async def test(device: Device) -> None:
        device.deliver(encode(signed(a_command(), key=Key())))
        assert (await device.replies(1))[0].code == "unsigned"

    with_device(tmp_path, instant(), test)


def test_a_device_without_keys_believes_nobody(tmp_path: Path) -> None:
    async def test(device: Device) -> None:
        device.deliver(encode(a_command()))
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
        Trust.of(device.config.trust_file),
        clock,
    )
    command = a_command(arrays=ObjectRef(digest(b"weights"), 7, "url"))
    reply = asyncio.run(execution.answer(command, 0.0))
    assert (reply.status, reply.timing, reply.bytes_down) == ("ok", Timing(2.0, 5.0, 0.0), 7)
    late = asyncio.run(execution.answer(a_command(seconds=5.0), 0.0))
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
        Trust.of(device.config.trust_file),
        Clock(),
    )
    command = a_command(arrays=ObjectRef("c" * 64, 7, "url"))
    assert asyncio.run(execution.answer(command, 0.0)).code == "disk-full"
