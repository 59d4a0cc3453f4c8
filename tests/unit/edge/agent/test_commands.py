"""Each command is answered once, with a result or a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from fakes.clock import Clock
from fakes.devices import Device, a_command, instant, with_device
from fakes.transport import MemoryTransport

from edge.agent.commands import WAITING_COMMANDS, CommandLoop
from edge.agent.spool import Outbox, Spool
from edge.protocol.messages import (
    Claim,
    Command,
    ObjectRef,
    Reply,
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


class Loop:
    """A command loop whose app answers when it is let."""

    def __init__(self, folder: Path) -> None:
        self.device, self.transport = Device(folder, instant()), MemoryTransport()
        self.gate = asyncio.Event()
        self.answered: list[str] = []
        spool = Spool(folder / "spool")
        self.commands = CommandLoop(
            "fl/f/d0/command",
            self,  # type: ignore[arg-type]  # stands for the execution
            self.device.objects,
            Outbox(spool, self.transport, "fl/f/d0/reply"),
            asyncio.Lock(),
            Clock(),
        )

    async def answer(self, command: Command, received: float) -> Reply:
        await self.gate.wait()
        self.answered.append(command.message_id)
        return Reply(
            run=command.run, phase=command.phase, message_id=command.message_id, status="ok"
        )


def with_loop(folder: Path, test: Callable[[Loop], Awaitable[None]]) -> None:
    async def main() -> None:
        loop = Loop(folder)
        running = asyncio.ensure_future(loop.commands.run())
        try:
            await test(loop)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


def test_a_flood_is_dropped_and_the_first_commands_are_answered_in_order(tmp_path: Path) -> None:
    async def test(loop: Loop) -> None:
        assert loop.commands.is_idle()
        loop.commands.receive("fl/f/d0/command", encode(a_command("m0")))
        await asyncio.sleep(0.01)
        assert (loop.commands.is_busy(), loop.commands.is_idle()) == (True, False)
        for number in range(1, 20):
            assert loop.commands.receive("fl/f/d0/command", encode(a_command(f"m{number}")))
        loop.gate.set()
        await loop.transport.until(1 + WAITING_COMMANDS, "/reply")
        assert loop.answered == [f"m{number}" for number in range(1 + WAITING_COMMANDS)]
        await asyncio.sleep(0)
        assert loop.commands.is_idle()

    with_loop(tmp_path, test)


def test_a_claim_that_leads_to_nothing_is_dropped_and_the_next_command_answered(
    tmp_path: Path,
) -> None:
    async def test(loop: Loop) -> None:
        loop.gate.set()
        claim = Claim(ObjectRef("e" * 64, 10, "nowhere"), 60.0)
        loop.commands.receive("fl/f/d0/command", encode(claim))
        loop.commands.receive("fl/f/d0/command", encode(a_command("m1")))
        await loop.transport.until(1, "/reply")
        assert loop.answered == ["m1"]

    with_loop(tmp_path, test)


def test_other_topics_are_left_to_others(tmp_path: Path) -> None:
    async def test(loop: Loop) -> None:
        assert not loop.commands.receive("fl/f/d0/reply", b"{}")

    with_loop(tmp_path, test)
