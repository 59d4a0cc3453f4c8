"""Each command is answered once, with a result or a reason."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fakes.devices import Device, a_command, instant, with_device

from edge.protocol.messages import (
    Claim,
    ObjectRef,
    encode,
)
from edge.protocol.records import (
    decode_skeleton,
    digest,
)


def test_a_command_is_run_and_answered(tmp_path: Path) -> None:
    workers = instant()

    async def test(device: Device) -> None:
        device.deliver(encode(a_command(run_config='{"learning-rate": 0.25}')))
        (reply,) = await device.replies(1)
        assert (reply.status, reply.message_id) == ("ok", "m1")
        assert decode_skeleton(reply.content).metrics == {"m": {"loss": 1.0}}

    with_device(tmp_path, workers, test)
    assert workers.jobs[0].run_config["learning-rate"] == 0.25, (
        "the run's settings override the app's"
    )
    assert workers.jobs[0].run_config["local-steps"] == 30
    assert workers.jobs[0].node_config == {"partition-id": 0, "num-partitions": 3}


def test_a_repeated_command_gets_the_same_answer_and_trains_nothing_twice(tmp_path: Path) -> None:
    workers = instant()

    async def test(device: Device) -> None:
        for _ in range(3):
            device.deliver(encode(a_command()))
        replies = await device.replies(3)
        assert replies[0] == replies[1] == replies[2]

    with_device(tmp_path, workers, test)
    assert len(workers.jobs) == 1


def test_a_large_command_is_fetched_by_its_claim(tmp_path: Path) -> None:
    async def test(device: Device) -> None:
        body = msgspec.json.encode(a_command(upload_url="u" * 5000))
        device.objects.data["claim"] = body
        device.deliver(encode(Claim(ObjectRef(digest(body), len(body), "claim"), 60.0)))
        assert (await device.replies(1))[0].status == "ok"

    with_device(tmp_path, instant(), test)


@pytest.mark.parametrize(
    "noise", [b"", b"\xff\xfe", b"{}", b"[" * 10_000, b'{"type":"command"}', b"x" * 100_000]
)
def test_noise_on_the_command_topic_does_no_harm(tmp_path: Path, noise: bytes) -> None:
    async def test(device: Device) -> None:
        device.deliver(noise)
        device.deliver(noise, "$aws/things/d0/shadow/update/delta")
        device.deliver(encode(a_command()))
        assert (await device.replies(1))[0].status == "ok"

    with_device(tmp_path, instant(), test)


def test_a_device_that_was_restarted_answers_a_repeated_command_without_training_again(
    tmp_path: Path,
) -> None:
    from edge.protocol.messages import encode

    async def first(device: Device) -> None:
        device.deliver(encode(a_command()))
        await device.replies(1)

    with_device(tmp_path / "home", instant(), first)
    workers = instant(ok=False, code="app-error", reason="it trained again")

    async def second(device: Device) -> None:
        device.deliver(encode(a_command()))
        assert [reply.status for reply in await device.replies(1)] == ["ok"]

    with_device(tmp_path / "home", workers, second)
    assert workers.jobs == []
