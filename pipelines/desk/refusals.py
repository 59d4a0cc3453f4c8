"""Updates and commands that were refused, by device and reason, from the records of rounds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from edge.typed import from_json
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import rounds_prefix
from fl_runtime.run.records import DeviceRow, RoundRecord

_SILENT = frozenset({"no-reply", "not-sent"})
"""Reason codes of devices that were not reached or did not answer: nothing was refused."""


class RunObjects(Protocol):
    """What is read of the object store."""

    def keys(self, prefix: str) -> list[str]:
        """All keys under a prefix, sorted."""

    def get(self, key: str) -> bytes:
        """An object. Raises ObjectMissing."""


class Refusal(msgspec.Struct, kw_only=True):
    """What was refused of one device for one reason."""

    device: str
    code: str
    count: int
    run: str
    """The run of the latest one."""
    round: int
    """The round of the latest one."""
    reason: str
    """The latest one's text."""


def refusals(objects: RunObjects, runs: Iterable[str]) -> list[Refusal]:
    """The refusals in all finished rounds of these runs, the most frequent first.

    ``runs``: ids, newest first. A record that cannot be read is skipped.
    """
    found: dict[tuple[str, str], Refusal] = {}
    for run in runs:
        for key in reversed(objects.keys(rounds_prefix(run))):
            for row in _refused(objects, key):
                known = found.get((row.device, row.code))
                if known is not None:
                    known.count += 1
                    continue
                found[row.device, row.code] = Refusal(
                    device=row.device,
                    code=row.code,
                    count=1,
                    run=run,
                    round=row.round,
                    reason=row.reason,
                )
    return sorted(found.values(), key=lambda item: (-item.count, item.device, item.code))


def _refused(objects: RunObjects, key: str) -> list[DeviceRow]:
    try:
        record = from_json(objects.get(key), type=RoundRecord)
    except (ObjectMissing, msgspec.DecodeError):
        return []
    return [row for row in record.devices if row.status == "error" and row.code not in _SILENT]
