"""Rows of the devices table, as they are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edge.protocol.messages import Heartbeat, Serving
from fl_runtime.run.devices import DeviceStatus


def status(device: str, model: str | None = "", serving: Serving | None = None) -> DeviceStatus:
    """A device by its last heartbeat; ``model`` None: the heartbeat is malformed."""
    heartbeat = None if model is None else Heartbeat(state="idle", model=model, serving=serving)
    return DeviceStatus(fleet="f", device=device, last_seen=0.0, heartbeat=heartbeat)


class MemoryDevices:
    """The DynamoDB client of a devices table in memory."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = {_key(row): row for row in rows}

    def put_item(self, TableName: str, Item: dict[str, Any]) -> None:
        self.rows[_key(Item)] = Item

    def get_item(
        self, TableName: str, Key: dict[str, Any], ConsistentRead: bool
    ) -> dict[str, dict[str, Any]]:
        assert ConsistentRead
        return {"Item": self.rows[_key(Key)]} if _key(Key) in self.rows else {}

    def delete_item(self, TableName: str, Key: dict[str, Any]) -> None:
        self.rows.pop(_key(Key), None)

    def get_paginator(self, operation: str) -> MemoryDevices:
        assert operation in ("query", "scan")
        return self

    def paginate(self, **given: Any) -> Iterator[dict[str, Any]]:
        wanted = given.get("ExpressionAttributeValues", {}).get(":fleet")
        yield {"Items": [row for row in self.rows.values() if wanted in (None, row["fleet"])]}


def _key(row: dict[str, Any]) -> tuple[str, str]:
    return row["fleet"]["S"], row["device"]["S"]
