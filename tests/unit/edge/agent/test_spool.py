"""Replies survive a lost connection, a reboot and a full disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fakes.devices import Device, a_command, instant, with_device
from fakes.keys import sealed

from edge.agent.spool import KEPT, Spool
from edge.transports import TransportError


def test_a_reply_outlives_a_lost_connection(tmp_path: Path) -> None:
    async def test(device: Device) -> None:

        publish, lost = device.transport.publish, [True]

        async def flaky(topic: str, payload: bytes) -> None:
            if lost[0] and topic.endswith("/reply"):
                raise TransportError("the link is down")
            await publish(topic, payload)

        device.transport.publish = flaky
        device.deliver(sealed(a_command()))
        await asyncio.sleep(0.3)
        assert not [t for t, _ in device.transport.published if t.endswith("/reply")]
        lost[0] = False
        assert [reply.message_id for reply in await device.replies(1)] == ["m1"]

    with_device(tmp_path, instant(), test)


def test_a_reply_that_is_being_sent_is_not_sent_again_by_a_heartbeat(tmp_path: Path) -> None:
    async def test(device: Device) -> None:
        publish, begun = device.transport.publish, []

        async def slow(topic: str, payload: bytes) -> None:
            if topic.endswith("/reply"):
                begun.append(topic)
                await asyncio.sleep(0.3)  # in which some heartbeats come
            await publish(topic, payload)

        device.transport.publish = slow
        device.deliver(sealed(a_command()))
        await device.replies(1)
        await device.heartbeats(len(device.transport.published) + 2)
        assert len(begun) == 1

    with_device(tmp_path, instant(), test)


def test_the_spool_keeps_order_is_bounded_and_forgets_what_a_power_cut_left(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in range(KEPT + 5):
        spool.keep(f"m/../{number}", f"p{number}".encode())
    assert spool.get("m/../4") is None, "nor in memory"
    spool.mark_sent("m/../7")
    spool.mark_sent("never kept")
    (tmp_path / "torn.json").write_bytes(b'{"message_id": "x"')
    (tmp_path / ".0.json.1234.part").write_bytes(b'{"mess')
    again = Spool(tmp_path)
    assert [entry.payload for entry in again.unsent()] == [
        f"p{n}".encode() for n in range(5, KEPT + 5) if n != 7
    ]
    assert again.get("m/../7") == b"p7"
    assert again.get("m/../0") is None
    assert len(list(tmp_path.iterdir())) == KEPT
    again.keep("next", b"n")
    assert again.unsent()[-1].message_id == "next"


def test_a_disk_that_takes_nothing_costs_no_reply(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spool = Spool(tmp_path / "file" / "spool")
    spool.keep("m", b"p")
    assert spool.get("m") == b"p"
    assert [entry.message_id for entry in spool.unsent()] == ["m"]
    for number in range(KEPT + 1):
        spool.keep(f"m{number}", b"p")
    assert len(spool.unsent()) == KEPT
