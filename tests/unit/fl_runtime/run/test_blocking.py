"""A blocked device is in no fleet, and its name alone keeps it out."""

from __future__ import annotations

from typing import Any

from fakes.devices_table import MemoryDevices

from fl_runtime.run.blocking import Block, BlockList
from fl_runtime.run.devices import DeviceTable

BLOCK = Block(reason="it is stolen", by="ann", at=12.5, certificates=("c1", "c2"))


def row(device: str) -> dict[str, Any]:
    return {"fleet": {"S": "f"}, "device": {"S": device}, "body": {"S": "{}"}}


def test_a_block_is_read_as_it_was_written_and_can_be_taken_away() -> None:
    blocks = BlockList(MemoryDevices(row("d1")), "devices")
    assert blocks.read() == {}
    blocks.add("d1", BLOCK)
    blocks.add("d2", Block(reason="-", by="ann", at=1.0))
    assert blocks.read() == {"d1": BLOCK, "d2": Block(reason="-", by="ann", at=1.0)}
    assert blocks.find("d1") == BLOCK
    for _ in range(2):
        blocks.remove("d2")
    assert blocks.find("d2") is None
    assert list(blocks.read()) == ["d1"]


def test_a_blocked_device_is_discovered_by_nobody_and_still_shown() -> None:
    client = MemoryDevices(row("d1"), row("d2"))
    BlockList(client, "devices").add("d1", BLOCK)
    table = DeviceTable(client, "devices")
    assert [status.device for status in table.fleet("f")] == ["d2"]
    assert [status.device for status in table.all()] == ["d1", "d2"]
