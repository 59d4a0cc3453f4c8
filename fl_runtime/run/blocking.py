"""Devices that an operator has shut out: they are not asked, and what they send does not count.

A block is a row of the devices table under a fleet's name that no device can have: topics cannot
hold a ``#``, so no heartbeat writes there. It holds from the next message on, since whoever sends a
command or counts a reply reads it first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FLEET = "#blocked"
"""Partition key of the rows."""
CODE = "blocked"
"""Reason code of a device that was asked before it was blocked."""
REASON = "an operator has blocked the device"


@dataclass(frozen=True, kw_only=True)
class Block:
    """Who shut a device out, when and why."""

    reason: str
    by: str
    at: float
    """Unix seconds."""
    certificates: tuple[str, ...] = ()
    """Ids of the certificates that were deactivated with it."""


class BlockList:
    """Reads and writes the blocks of all fleets. Names of devices are unique over fleets."""

    def __init__(self, dynamodb: Any, table: str) -> None:
        self._client = dynamodb
        self._table = table

    def read(self) -> dict[str, Block]:
        """The blocks by device, with strongly consistent reads."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            ConsistentRead=True,
            KeyConditionExpression="fleet = :fleet",
            ExpressionAttributeValues={":fleet": {"S": FLEET}},
        )
        return {row["device"]["S"]: _block(row) for page in pages for row in page["Items"]}

    def find(self, device: str) -> Block | None:
        """The block of one device, with a strongly consistent read; None when there is none."""
        found = self._client.get_item(TableName=self._table, Key=_key(device), ConsistentRead=True)
        return _block(found["Item"]) if "Item" in found else None

    def add(self, device: str, block: Block) -> None:
        """Block a device (idempotent)."""
        item = {
            **_key(device),
            "reason": {"S": block.reason},
            "by": {"S": block.by},
            "at": {"N": repr(block.at)},
            "certificates": {"S": " ".join(block.certificates)},
        }
        self._client.put_item(TableName=self._table, Item=item)

    def remove(self, device: str) -> None:
        """Let a device in again (idempotent)."""
        self._client.delete_item(TableName=self._table, Key=_key(device))


def _key(device: str) -> dict[str, Any]:
    return {"fleet": {"S": FLEET}, "device": {"S": device}}


def _block(row: Mapping[str, Any]) -> Block:
    return Block(
        reason=row["reason"]["S"],
        by=row["by"]["S"],
        at=float(row["at"]["N"]),
        certificates=tuple(row["certificates"]["S"].split()),
    )
