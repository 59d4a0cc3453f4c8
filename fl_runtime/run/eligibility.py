"""Which devices may be asked now: by what their heartbeats say, never by what a payload says they
are called.

Requirements (``--require KEY=VALUE``): ``idle`` (true), ``power`` (mains or battery),
``free-memory`` (MiB at
least); any other key is a label that the device must have with this value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import ConfigValue, Heartbeat, decode
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.spec import RunSpec

FRESH_SECONDS = 90.0
"""A device that has not been heard of for so long is not asked (three heartbeats of the default 30
s).
"""


def check_requirements(require: Mapping[str, ConfigValue]) -> None:
    """Raises RunFailed for a requirement that no heartbeat could meet."""
    wanted: dict[str, tuple[bool, str]] = {
        "idle": (isinstance(require.get("idle"), bool), "true or false"),
        "power": (require.get("power") in ("mains", "battery"), "mains or battery"),
        "free-memory": (_is_number(require.get("free-memory")), "a number of MiB"),
    }
    for key, (right, what) in wanted.items():
        if key in require and not right:
            raise RunFailed(
                "require", f"The requirement {key} is {require[key]!r}; it must be {what}."
            )


def meets(beat: Heartbeat, require: Mapping[str, ConfigValue]) -> bool:
    """Whether a heartbeat fulfils all requirements."""
    for key, value in require.items():
        if key == "idle":
            if value and beat.state != "idle":
                return False
        elif key == "power":
            if beat.power != value:
                return False
        elif key == "free-memory":
            if beat.free_memory < float(value):
                return False
        elif beat.labels.get(key) != str(value):
            return False
    return True


def eligible(
    rows: Iterable[Mapping[str, Any]], spec: RunSpec, now: float, fresh_seconds: float
) -> dict[str, Heartbeat]:
    """Devices by name that were heard of lately, are not offline, have the run's app and meet its
    requirements.

    ``rows`` are those of the devices table. A malformed heartbeat counts as none.
    """
    found = {}
    for row in rows:
        try:
            beat = decode(row["body"]["S"], Heartbeat)
            age = now - float(row["last_seen"]["N"]) / 1000
            device = str(row["device"]["S"])
        except (ProtocolError, KeyError, ValueError):
            continue
        if (
            age <= fresh_seconds
            and beat.state != "offline"
            and spec.app in beat.apps
            and meets(beat, spec.require)
        ):
            found[device] = beat
    return dict(sorted(found.items()))


def rows_of(dynamodb: Any, table: str, fleet: str) -> Iterator[Mapping[str, Any]]:
    """The fleet's rows in the devices table."""
    pages = dynamodb.get_paginator("query").paginate(
        TableName=table,
        KeyConditionExpression="fleet = :fleet",
        ExpressionAttributeValues={":fleet": {"S": fleet}},
    )
    for page in pages:
        yield from page["Items"]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
