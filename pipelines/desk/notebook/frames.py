"""Records as DataFrames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from fl_runtime.run.records import DeviceRow, RoundRecord

if TYPE_CHECKING:
    import pandas as pd


def rounds_frame(records: Sequence[RoundRecord]) -> pd.DataFrame:
    """One row for each round: metrics, participants, seconds, bytes. Indexed by the round.

    Examples:
        >>> rounds_frame([]).empty
        True

    """
    import pandas as pd

    rows = [msgspec.to_builtins(record) for record in records]
    if not rows:  # an app need not send anything
        return pd.DataFrame(index=pd.Index([], name="round", dtype=int))
    return pd.json_normalize(rows).drop(columns="devices").set_index("round")


def devices_frame(records: Sequence[RoundRecord]) -> pd.DataFrame:
    """One row for each device: how many of its answers counted, what was refused, its latest
    reason, and its seconds and bytes over all rounds. Indexed by the device.
    """
    import pandas as pd

    found: dict[str, list[DeviceRow]] = {}
    for record in records:
        for row in record.devices:
            found.setdefault(row.device, []).append(row)
    columns = ["answers", "failures", "reason", "examples", "seconds", "bytes_up", "bytes_down"]
    rows = {device: _device(found[device]) for device in sorted(found)}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return frame.rename_axis("device")


def _device(rows: Sequence[DeviceRow]) -> list[Any]:
    failed = [row for row in rows if row.status == "error"]
    return [
        sum(row.status == "ok" for row in rows),
        len(failed),
        f"{failed[-1].code}: {failed[-1].reason}" if failed else "",
        max((row.examples for row in rows), default=0.0),
        round(sum(row.seconds_fetch + row.seconds_work + row.seconds_upload for row in rows), 3),
        sum(row.bytes_up for row in rows),
        sum(row.bytes_down for row in rows),
    ]


def table_frames(tables: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, pd.DataFrame]:
    """Tables that an app left, by name.

    Examples:
        >>> table_frames({"curve": {"x": [1, 2], "y": [3, 4]}})["curve"]
           x  y
        0  1  3
        1  2  4

    """
    import pandas as pd

    return {name: pd.DataFrame(dict(columns)) for name, columns in tables.items()}


def structs_frame(items: Sequence[msgspec.Struct], columns: Sequence[str]) -> pd.DataFrame:
    """One row for each item, with the fields that ``columns`` names."""
    import pandas as pd

    rows = [[getattr(item, name) for name in columns] for item in items]
    return pd.DataFrame(rows, columns=list(columns))
