"""Each command is answered once, with a result or a reason."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from fakes.clock import Clock
from fakes.devices import Device, a_command, instant, with_device
from fakes.keys import Key, claim_of, sealed
from fakes.transport import MemoryTransport

from edge.agent.commands import CLAIM_SECONDS, WAITING_COMMANDS, CommandLoop
from edge.agent.freshness import Freshness
from edge.agent.order_gate import GrantedCommand, OrderGate
from edge.agent.renewal import Renewals
from edge.agent.spool import KEPT, Outbox, Spool
from edge.identity.trust import Trust
from edge.object_transfer import Objects
from edge.protocol.messages import Claim, Command, ObjectRef, Reply, encode
from edge.protocol.records import decode_skeleton
from fl_runtime.run.order_keys import new_key_pair


def test_a_command_is_run_and_answered(tmp_path: Path) -> None:
    workers = instant()

    async def test(device: Device) -> None:
        device.deliver(sealed(a_command(run_config='{"learning-rate": 0.25}')))
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
            device.deliver(sealed(a_command()))
        replies = await device.replies(3)
        assert replies[0] == replies[1] == replies[2]

    with_device(tmp_path, workers, test)
    assert len(workers.jobs) == 1


def test_a_large_command_is_fetched_by_its_claim(tmp_path: Path) -> None:
    async def test(device: Device) -> None:
        command = a_command(upload_url="u" * 5000)
        claim, device.objects.data["claim"] = claim_of(command, "claim")
        device.deliver(sealed(command, claim))
        assert (await device.replies(1))[0].status == "ok"

    with_device(tmp_path, instant(), test)


@pytest.mark.parametrize(
    "noise", [b"", b"\xff\xfe", b"{}", b"[" * 10_000, b'{"type":"command"}', b"x" * 100_000]
)
def test_noise_on_the_command_topic_does_no_harm(tmp_path: Path, noise: bytes) -> None:
    async def test(device: Device) -> None:
        device.deliver(noise)
        device.deliver(noise, "$aws/things/d0/shadow/update/delta")
        device.deliver(sealed(a_command()))
        assert (await device.replies(1))[0].status == "ok"

    with_device(tmp_path, instant(), test)


def test_a_device_that_was_restarted_answers_a_repeated_command_without_training_again(
    tmp_path: Path,
) -> None:
    async def first(device: Device) -> None:
        device.deliver(sealed(a_command()))
        await device.replies(1)

    with_device(tmp_path / "home", instant(), first)
    workers = instant(ok=False, code="app-error", reason="it trained again")

    async def second(device: Device) -> None:
        device.deliver(sealed(a_command()))
        assert [reply.status for reply in await device.replies(1)] == ["ok"]

    with_device(tmp_path / "home", workers, second)
    assert workers.jobs == []


def test_a_captured_command_gives_one_training_and_no_upload_elsewhere(tmp_path: Path) -> None:
    workers, captured = instant(), sealed(a_command("m-00"))

    async def test(device: Device) -> None:
        device.deliver(captured)
        await device.replies(1)
        for number in range(1, 21):
            moved = captured.replace(b'"up"', b'"elsewhere"')
            device.deliver(moved)
            device.deliver(moved.replace(b"m-00", b"m-%02d" % number))
            device.deliver(captured)
            await asyncio.sleep(0.002)

    with_device(tmp_path, workers, test)
    assert [job.message_id for job in workers.jobs] == ["m-00"]

    async def later(device: Device) -> None:
        """After a restart, when the reply is no longer kept."""
        for number in range(KEPT):
            device.deliver(sealed(a_command(f"later-{number}")))
            await device.replies(number + 1)
        for _ in range(20):
            device.deliver(captured)
            await asyncio.sleep(0.002)

    with_device(tmp_path, workers, later)
    assert [job.message_id for job in workers.jobs].count("m-00") == 1


def test_a_command_that_is_sent_again_after_a_crash_is_carried_out(tmp_path: Path) -> None:
    """The device began it, was restarted before it had a reply, and its cohort sends it again."""
    order = a_command()
    Freshness(tmp_path / "orders.json").use(order)
    workers = instant()

    async def test(device: Device) -> None:
        device.deliver(sealed(order))
        device.deliver(sealed(msgspec.structs.replace(order, issued=order.issued + 1)))
        assert (await device.replies(1))[0].status == "ok"

    with_device(tmp_path, workers, test)
    assert len(workers.jobs) == 1


def test_nothing_is_fetched_for_an_order_that_is_not_signed(tmp_path: Path) -> None:
    async def test(device: Device) -> None:
        for number in range(30):
            command = a_command(f"m{number}")
            claim, device.objects.data["claim"] = claim_of(command, "claim")
            device.deliver(sealed(command, claim, key=Key()))
            device.deliver(sealed(command, claim, private=new_key_pair()[0]))
            device.deliver(encode(claim))
        device.deliver(sealed(a_command()))
        assert (await device.replies(1))[-1].status == "ok", "they took no place in the queue"
        assert device.objects.fetched == []

    with_device(tmp_path, instant(), test)


def test_a_claim_stands_for_the_command_that_it_names_and_no_other(tmp_path: Path) -> None:
    workers = instant()

    async def test(device: Device) -> None:
        command, other = a_command("m0"), a_command("m1", upload_url="elsewhere")
        _, device.objects.data["claim"] = claim_of(other, "claim")
        claim, _ = claim_of(other, "claim", message_id="m0")
        device.deliver(sealed(command, claim))
        device.deliver(sealed(a_command("m2")))
        await device.replies(1)
        await asyncio.sleep(0.02)

    with_device(tmp_path, workers, test)
    assert [job.message_id for job in workers.jobs] == ["m2"]


def test_an_older_cloud_is_told_to_deploy_this_release(tmp_path: Path) -> None:
    older = {
        "type": "command",
        "v": 1,
        "run": "run-1",
        "phase": "00001-train-0001",
        "message_id": "m",
        "reply_key": "key",
        "signature": "s",
    }

    async def test(device: Device) -> None:
        device.deliver(json.dumps(older).encode())
        (reply,) = await device.replies(1)
        assert (reply.code, reply.message_id) == ("outdated", "m")
        assert "deploy a cloud of this agent's release" in reply.reason

    device = with_device(tmp_path, instant(), test)
    assert list(device.config.spool_dir.glob("*")) == [], "anybody could fill the spool"


class SlowDisk(Freshness):
    """Does not note an order before it is let."""

    def __init__(self, file: Path, ready: threading.Event) -> None:
        super().__init__(file)
        self._ready = ready

    def use(self, order: Command | Claim) -> None:
        assert self._ready.wait(5), "the rest of the process waits for this disk"
        super().use(order)


class SlowSpool(Spool):
    """Does not store a reply before it is let."""

    def __init__(self, folder: Path, ready: threading.Event) -> None:
        super().__init__(folder)
        self._ready = ready

    def keep(self, message_id: str, payload: bytes) -> None:
        assert self._ready.wait(5), "the rest of the process waits for this disk"
        super().keep(message_id, payload)


def test_devices_of_one_process_do_not_wait_for_each_others_disks(tmp_path: Path) -> None:
    """An order and a reply are each synced, which takes milliseconds: 64 devices took seconds."""

    async def main() -> None:
        noted, stored = threading.Event(), threading.Event()
        slow = Loop(
            tmp_path / "slow",
            freshness=SlowDisk(tmp_path / "slow" / "orders.json", noted),
            spool=SlowSpool(tmp_path / "slow" / "spool", stored),
        )
        other = Loop(tmp_path / "other")
        running = [asyncio.ensure_future(loop.commands.run()) for loop in (slow, other)]
        try:
            for number, disk in enumerate((noted, stored)):
                for loop in (slow, other):
                    loop.gate.set()
                    loop.commands.receive(COMMANDS, sealed(a_command(f"m{number}")))
                await other.transport.until(number + 1, "/reply")
                assert len(slow.transport.published) == 0
                disk.set()
            await slow.transport.until(2, "/reply")
        finally:
            noted.set()
            stored.set()
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    asyncio.run(main())


class Loop:
    """A command loop whose app answers when it is let."""

    def __init__(
        self, folder: Path, *, freshness: Freshness | None = None, spool: Spool | None = None
    ) -> None:
        self.device, self.transport = Device(folder, instant()), MemoryTransport()
        self.gate = asyncio.Event()
        self.answered: list[str] = []
        self.renewals = Renewals(Clock())
        spool = spool or Spool(folder / "spool")
        self.commands = CommandLoop(
            "fl/f/d0/command",
            OrderGate(
                "f",
                "d0",
                Trust.of(self.device.config.trust_file),
                freshness or Freshness(folder / "orders.json"),
            ),
            self,  # type: ignore[arg-type]  # stands for the execution
            self.device.objects,
            Outbox(spool, self.transport, "fl/f/d0/reply"),
            asyncio.Lock(),
            Clock(),
        )

    async def answer(self, granted: GrantedCommand, received: float) -> Reply:
        command = granted.command
        await self.gate.wait()
        if command.message_id == "broken":
            raise ZeroDivisionError("a fault of ours")
        self.answered.append(command.message_id)
        return Reply(
            run=command.run, phase=command.phase, message_id=command.message_id, status="ok"
        )

    async def until_idle(self) -> None:
        async with asyncio.timeout(5):
            while not self.commands.is_idle():
                await asyncio.sleep(0.001)


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
        loop.commands.receive("fl/f/d0/command", sealed(a_command("m0")))
        await asyncio.sleep(0.01)
        assert (loop.commands.is_busy(), loop.commands.is_idle()) == (True, False)
        for number in range(1, 20):
            assert loop.commands.receive("fl/f/d0/command", sealed(a_command(f"m{number}")))
        loop.gate.set()
        await loop.transport.until(1 + WAITING_COMMANDS, "/reply")
        assert loop.answered == [f"m{number}" for number in range(1 + WAITING_COMMANDS)]
        await loop.until_idle()

    with_loop(tmp_path, test)


def test_a_claim_that_leads_to_nothing_is_dropped_and_the_next_command_answered(
    tmp_path: Path,
) -> None:
    async def test(loop: Loop) -> None:
        loop.gate.set()
        command = a_command("m0")
        claim, _ = claim_of(command, "nowhere")
        loop.commands.receive("fl/f/d0/command", sealed(command, claim))
        loop.commands.receive("fl/f/d0/command", sealed(a_command("m1")))
        await loop.transport.until(1, "/reply")
        assert loop.answered == ["m1"]

    with_loop(tmp_path, test)


def test_other_topics_are_left_to_others(tmp_path: Path) -> None:
    async def test(loop: Loop) -> None:
        assert not loop.commands.receive("fl/f/d0/reply", b"{}")

    with_loop(tmp_path, test)


COMMANDS = "fl/f/d0/command"


class DrippingObjects:
    """Objects that come only when nobody waits any more, but for those named."""

    def __init__(self, objects: Objects, quick: str) -> None:
        self.objects, self.quick = objects, quick
        self.seconds: list[float] = []

    async def fetch(self, ref: ObjectRef, seconds: float) -> tuple[Path, int]:
        self.seconds.append(seconds)
        if ref.url != self.quick:
            await asyncio.sleep(3600)
        return await self.objects.fetch(ref, seconds)

    async def put(self, url: str, file: Path, seconds: float) -> None:
        raise AssertionError("nothing is uploaded")


def test_claims_that_drip_block_no_command_and_have_seconds_of_their_own(tmp_path: Path) -> None:
    async def test(loop: Loop) -> None:
        loop.gate.set()
        dripping = DrippingObjects(loop.device.objects, "quick")
        loop.commands._objects = dripping  # type: ignore[assignment]
        command = a_command("claimed")
        quick, loop.device.objects.data["quick"] = claim_of(command, "quick", seconds=600_000.0)

        def slow() -> bytes:
            other = a_command(f"slow-{next(numbers)}")
            return sealed(other, claim_of(other, "slow", seconds=600_000.0)[0])

        numbers = itertools.count()
        loop.commands.receive(COMMANDS, slow())
        loop.commands.receive(COMMANDS, sealed(command, quick))
        for _ in range(50):
            loop.commands.receive(COMMANDS, slow())
        loop.commands.receive(COMMANDS, sealed(a_command("direct")))
        await loop.transport.until(2, "/reply")
        assert sorted(loop.answered) == ["claimed", "direct"]
        assert max(dripping.seconds) == CLAIM_SECONDS

    with_loop(tmp_path, test)


def test_a_fault_of_ours_ends_neither_the_loop_nor_its_busy_state(tmp_path: Path) -> None:
    async def test(loop: Loop) -> None:
        loop.gate.set()
        loop.commands.receive(COMMANDS, sealed(a_command("broken")))
        loop.commands.receive(COMMANDS, sealed(a_command("m1")))
        await loop.transport.until(1, "/reply")
        assert loop.answered == ["m1"]
        await loop.until_idle()

    with_loop(tmp_path, test)


def test_a_reply_too_long_to_be_sent_is_answered_by_a_short_one(tmp_path: Path) -> None:
    async def test(device: Device) -> None:
        device.deliver(sealed(a_command()))
        (reply,) = await device.replies(1)
        assert (reply.status, reply.code) == ("error", "too-long")
        device.deliver(sealed(a_command("m2")))
        assert [reply.message_id for reply in await device.replies(2)] == ["m1", "m2"]

    with_device(tmp_path, instant(content="x" * 5000), test)


@pytest.mark.parametrize(
    "order",
    [
        b'{"message_id": "%s"}' % (b"m" * 5000),
        b'{"reply_key": "%s"}' % (b"k" * 20_000),
        b'{"flower_run_id": 1180591620717411303424}',
        b'{"run_config": "{\\"a\\": %s}"}' % (b"9" * 300),
        b'{"run_config": "{\\"a\\": [1]}"}',
        b'{"seconds": 1e9}',
    ],
)
def test_no_replayed_command_ends_the_agent(tmp_path: Path, order: bytes) -> None:
    async def test(device: Device) -> None:
        command = a_command("m0")
        fields = {**json.loads(msgspec.json.encode(command)), **json.loads(order)}
        device.deliver(sealed(command, json.dumps(fields).encode()))
        device.deliver(sealed(a_command("m1")))
        for _ in range(500):
            replies = await device.replies(1)
            if replies[-1].message_id == "m1":
                return
            await asyncio.sleep(0.01)
        raise AssertionError(replies)

    with_device(tmp_path, instant(), test)


def test_a_claim_for_more_than_a_command_can_be_is_not_fetched(tmp_path: Path) -> None:
    async def test(device: Device) -> None:
        claim = json.loads(msgspec.json.encode(claim_of(a_command("m0"), "x")[0]))
        claim["command"]["size"] = 314_572_800
        device.deliver(sealed(a_command("m0"), json.dumps(claim).encode()))
        device.deliver(sealed(a_command()))
        await device.replies(1)
        assert device.objects.fetched == []

    with_device(tmp_path, instant(), test)


@pytest.mark.parametrize(
    "noise",
    [
        b"\xff",
        b'{"state": {"certificate_after": 1e300}}',
        b"[" * 99_999,
        b'{"state": {"desired": 1}}',
    ],
)
def test_no_shadow_ends_the_agent(tmp_path: Path, noise: bytes) -> None:
    async def test(device: Device) -> None:
        for suffix in ("update/delta", "get/accepted"):
            device.deliver(noise, f"$aws/things/d0/shadow/{suffix}")
        await asyncio.sleep(0.05)
        device.deliver(sealed(a_command()))
        assert (await device.replies(1))[0].status == "ok"

    with_device(tmp_path, instant(), test)
