"""What a rollout reads of the fleet, and the placeholder that AWS IoT presigns. The store and the
jobs have contract suites.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edge.protocol.messages import ORDER_VERSION, Heartbeat
from fl_runtime.run.devices import DeviceStatus
from registry.errors import RegistryError
from registry.rollout.aws import DynamoStore, HeartbeatFleet, object_url
from registry.rollout.model import DeviceState, FleetRecord


def test_a_device_is_offline_once_its_heartbeat_is_old_malformed_or_its_last_will() -> None:
    devices = [
        DeviceStatus(fleet="f", device=name, last_seen=seen, heartbeat=beat)
        for name, seen, beat in [
            ("here", 95.0, Heartbeat(state="idle", model="x/1", orders=ORDER_VERSION)),
            ("old", 5.0, Heartbeat(state="idle", model="x/1", orders=ORDER_VERSION)),
            ("gone", 95.0, Heartbeat(state="offline")),
            ("odd", 95.0, None),
        ]
    ]
    now = [100.0]
    fleet = HeartbeatFleet(lambda _: devices, lambda: now[0], 90.0)
    assert fleet.devices("f") == {
        "here": DeviceState("x/1", online=True),
        "old": DeviceState("x/1", online=False),
        "gone": DeviceState("", online=False),
        "odd": DeviceState("", online=False),
    }
    now[0] = 200.0
    assert not fleet.devices("f")["here"].online


def test_agents_of_an_earlier_release_are_left_out_of_rollouts() -> None:
    """They refuse a manifest whose fields they do not know: a fleet that is half updated would
    turn every rollout back. A last will does not tell what its agent takes.
    """
    beats = {
        "of-0-4": Heartbeat(state="idle", model="x/1", orders=ORDER_VERSION - 1),
        "of-1-0": Heartbeat(state="idle", model="x/1", orders=ORDER_VERSION + 1),
        "gone": Heartbeat(state="offline"),
    }
    devices = [
        DeviceStatus(fleet="f", device=name, last_seen=95.0, heartbeat=beat)
        for name, beat in beats.items()
    ]
    found = HeartbeatFleet(lambda _: devices, lambda: 100.0, 90.0).devices("f")
    assert sorted(found) == ["gone", "of-1-0"]


def test_the_placeholder_names_bucket_key_and_region() -> None:
    assert object_url("b", "eu-west-1")("runs/r/model/m.safetensors") == (
        "${aws:iot:s3-presigned-url:"
        "https://s3.eu-west-1.amazonaws.com/b/runs/r/model/m.safetensors}"
    )


class Table:
    """DynamoDB with a few rows: reads only."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = rows

    def get_paginator(self, _: str) -> Table:
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        return [{"Items": list(self.rows)}]

    def get_item(self, Key: dict[str, Any], **_: Any) -> dict[str, Any]:  # AWS's name
        found = [row for row in self.rows if Key.items() <= row.items()]
        return {"Item": found[0]} if found else {}


def record(fleet: str, body: dict[str, Any] | None) -> dict[str, Any]:
    row = {"fleet": {"S": fleet}, "rollout": {"S": "current"}}
    return row if body is None else {**row, "body": body}


def test_a_malformed_row_hides_no_other_fleet_and_is_not_taken_for_a_new_one() -> None:
    whole = {"S": msgspec.json.encode(FleetRecord(fleet="g", number=3)).decode()}
    for body in (None, {"S": "{"}, {"S": "\ud800"}, {"M": {}}, {"S": "[]"}):
        store = DynamoStore(Table(record("f", body), record("g", whole)), "rollouts")
        assert [fleet.fleet for fleet in store.fleets()] == ["g"]
        assert store.current("g").number == 3
        assert store.current("new") == FleetRecord(fleet="new")
        with pytest.raises(RegistryError, match="f/current"):
            store.current("f")
