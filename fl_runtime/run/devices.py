"""The devices table: the last heartbeat of each device. The one place that decodes its rows.

The IoT rule writes a row for each heartbeat: ``fleet`` and ``device`` from the topic,
``certificate`` and ``last_seen`` (milliseconds) as the broker saw them, ``body`` as the device sent
it. All but ``body`` can be trusted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import Heartbeat, decode_heartbeat

FRESH_SECONDS = 90.0
"""A device not heard of for this long is away: three heartbeats of the default interval, 30 s."""


@dataclass(frozen=True, kw_only=True)
class DeviceStatus:
    """A device as its last heartbeat describes it."""

    fleet: str
    device: str
    last_seen: float
    """Unix seconds by the broker's clock; 0 when the row does not tell."""
    heartbeat: Heartbeat | None
    """None when the heartbeat is malformed."""
    certificate: str = ""
    """Id of the certificate that the device connected with, as the broker saw it."""

    def is_online(self, now: float, fresh_seconds: float) -> bool:
        """Whether the device was heard of in the last ``fresh_seconds`` and has not gone offline
        (its last will says so). A device with a malformed heartbeat is not online.
        """
        if self.heartbeat is None or self.heartbeat.state == "offline":
            return False
        return now - self.last_seen <= fresh_seconds


class DeviceTable:
    """Reads the devices table."""

    def __init__(self, dynamodb: Any, table: str) -> None:
        self._client = dynamodb
        self._table = table

    def fleet(self, fleet: str) -> Iterator[DeviceStatus]:
        """The devices of one fleet that were ever heard of, by name."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="fleet = :fleet",
            ExpressionAttributeValues={":fleet": {"S": fleet}},
        )
        for page in pages:
            yield from map(decode_row, page["Items"])

    def all(self) -> Iterator[DeviceStatus]:
        """The devices of all fleets, in no order."""
        for page in self._client.get_paginator("scan").paginate(TableName=self._table):
            yield from map(decode_row, page["Items"])


def decode_row(row: Mapping[str, Any]) -> DeviceStatus:
    """A row as DynamoDB returns it. Never raises for what a device may have put into it."""
    try:
        last_seen = float(row["last_seen"]["N"]) / 1000
    except (KeyError, ValueError):
        last_seen = 0.0
    # A device may publish any bytes on its own topic; the rule stores them unread.
    try:
        heartbeat = decode_heartbeat(row["body"]["S"])
    except (ProtocolError, KeyError):
        heartbeat = None
    return DeviceStatus(
        fleet=str(row["fleet"]["S"]),
        device=str(row["device"]["S"]),
        last_seen=last_seen,
        heartbeat=heartbeat,
        certificate=str(row.get("certificate", {}).get("S", "")),
    )
