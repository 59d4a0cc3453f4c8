"""The devices table is decoded in one place."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from edge.protocol.messages import Heartbeat, encode
from fl_runtime.run.devices import DeviceStatus, DeviceTable, decode_row


def row(device: str, body: str, fleet: str = "f", seen: str = "99000") -> dict[str, Any]:
    return {
        "fleet": {"S": fleet},
        "device": {"S": device},
        "body": {"S": body},
        "last_seen": {"N": seen},
    }


class MemoryTable:
    """The two reads of DynamoDB that the devices table needs, a page for each item."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def get_paginator(self, operation: str) -> MemoryTable:
        assert operation in ("query", "scan")
        return self

    def paginate(self, **given: Any) -> Iterator[dict[str, Any]]:
        values = given.get("ExpressionAttributeValues", {})
        for item in self.rows:
            if not values or item["fleet"] == values[":fleet"]:
                yield {"Items": [item]}


IDLE = encode(Heartbeat(state="idle", model="x/1")).decode()


def test_a_row_becomes_a_status() -> None:
    status = decode_row(row("d", IDLE))
    assert (status.fleet, status.device, status.last_seen) == ("f", "d", 99.0)
    assert status.heartbeat == Heartbeat(state="idle", model="x/1")
    assert status.certificate == ""
    assert decode_row({**row("d", IDLE), "certificate": {"S": "c1"}}).certificate == "c1"


@pytest.mark.parametrize("body", ["", "{}", "[1]", '{"state": "idle", "v": 9}', "\x00"])
def test_a_malformed_heartbeat_is_a_device_without_one(body: str) -> None:
    assert decode_row(row("d", body)).heartbeat is None
    bare = decode_row({"fleet": {"S": "f"}, "device": {"S": "d"}})
    assert (bare.heartbeat, bare.last_seen) == (None, 0.0)


@pytest.mark.parametrize(
    ("state", "age", "online"),
    [("idle", 0, True), ("busy", 30, True), ("idle", 30.1, False), ("offline", 0, False)],
)
def test_a_device_is_online_while_its_heartbeat_is_fresh(
    state: str, age: float, online: bool
) -> None:
    beat = msgspec.convert({"state": state}, Heartbeat)
    status = DeviceStatus(fleet="f", device="d", last_seen=100.0, heartbeat=beat)
    assert status.is_online(100.0 + age, fresh_seconds=30.0) is online


def test_a_fleet_is_read_over_all_pages() -> None:
    rows = [row("a", IDLE), row("b", "{}"), row("c", IDLE, fleet="g")]
    table = DeviceTable(MemoryTable(rows), "devices")
    assert [status.device for status in table.fleet("f")] == ["a", "b"]
    assert [status.device for status in table.all()] == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["a:b", "d\ud800", "", "x" * 64, "../d"])
def test_a_device_whose_name_no_run_can_use_is_left_out(name: str) -> None:
    rows = [row(name, IDLE), row("e", IDLE), row("d", IDLE, fleet=name)]
    assert [status.device for status in DeviceTable(MemoryTable(rows), "devices").all()] == ["e"]


@pytest.mark.parametrize(
    "odd",
    [
        {"body": {"M": {}}},
        {"body": {"S": "\ud800"}},
        {"body": {"S": '{"v": 1, "state": "idle", "boot": "\ud800"}'}},
        {"body": []},
        {"certificate": {"NULL": True}},
        {"certificate": "c"},
        {"last_seen": {"S": "now"}},
        {"last_seen": {"N": "1e300"}},
        {"last_seen": {"N": "nan"}},
    ],
)
def test_a_row_of_one_device_harms_no_other(odd: dict[str, Any]) -> None:
    rows = [{**row("d", IDLE), **odd}, {"body": {"S": IDLE}}, row("e", IDLE)]
    first, second = DeviceTable(MemoryTable(rows), "devices").all()
    assert (first.device, second.device) == ("d", "e")
    assert second.heartbeat is not None
    assert datetime.datetime.fromtimestamp(first.last_seen, datetime.UTC)
