"""The devices table: the last heartbeat of each device. The one place that decodes its rows.

The IoT rule writes a row for each heartbeat: ``fleet`` and ``device`` from the topic,
``certificate`` and ``last_seen`` (milliseconds) as the broker saw them, ``body`` as the device sent
it. All but ``body`` can be trusted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edge.logs import event
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import Heartbeat, decode_heartbeat
from edge.protocol.names import is_name
from fl_runtime.run.blocking import FLEET as BLOCKED
from fl_runtime.run.blocking import BlockList

logger = logging.getLogger(__name__)

FRESH_SECONDS = 90.0
"""A device not heard of for this long is away: three heartbeats of the default interval, 30 s."""

_LAST_MOMENT = 2.0**36
"""Unix seconds, in the year 4147."""


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
        """The devices of one fleet that were ever heard of, by name. Blocked ones are left out:
        neither runs nor rollouts ask them.
        """
        blocked = BlockList(self._client, self._table).read()
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="fleet = :fleet",
            ExpressionAttributeValues={":fleet": {"S": fleet}},
        )
        for page in pages:
            yield from (found for found in self._statuses(page) if found.device not in blocked)

    def all(self) -> Iterator[DeviceStatus]:
        """The devices of all fleets, blocked ones too, in no order."""
        for page in self._client.get_paginator("scan").paginate(TableName=self._table):
            yield from self._statuses(page)

    def _statuses(self, page: Mapping[str, Any]) -> Iterator[DeviceStatus]:
        """The rows that tell whose they are: the rule takes fleet and device from the topic. Names
        that are none of ours, such as a thing's with a colon, would end the run that asks for it.
        """
        statuses = [decode_row(row) for row in page["Items"] if text_of(row, "fleet") != BLOCKED]
        known = [item for item in statuses if is_name(item.fleet) and is_name(item.device)]
        if len(known) < len(statuses):
            count = len(statuses) - len(known)
            event(logger, "rows-skipped", logging.WARNING, table=self._table, count=count)
        yield from known


def text_of(row: Mapping[str, Any], column: str, kind: str = "S") -> str:
    """A column of a row as DynamoDB returns it; empty when it is absent or of another type.

    A device decides what an envelope holds, and DynamoDB stores any JSON.
    """
    typed = row.get(column)
    value = typed.get(kind) if isinstance(typed, Mapping) else None
    return value if isinstance(value, str) else ""


def decode_row(row: Mapping[str, Any]) -> DeviceStatus:
    """A row as DynamoDB returns it. Never raises for what a device may have put into it."""
    try:
        last_seen = float(text_of(row, "last_seen", "N")) / 1000
    except ValueError:
        last_seen = 0.0
    # A device may publish any bytes on its own topic; the rule stores them unread.
    try:
        heartbeat = decode_heartbeat(text_of(row, "body"))
    except ProtocolError:
        heartbeat = None
    return DeviceStatus(
        fleet=text_of(row, "fleet"),
        device=text_of(row, "device"),
        last_seen=last_seen if 0 <= last_seen < _LAST_MOMENT else 0.0,
        heartbeat=heartbeat,
        certificate=text_of(row, "certificate"),
    )
