"""What went wrong on a run's devices, counted: few rows, however many devices fail alike."""

from __future__ import annotations

from typing import Any

import msgspec

from fl_runtime.run.records import RoundRecord

FAILURES_FILE = "failures.json"
"""The MLflow artifact, in the layout that ``mlflow.load_table`` reads."""
ROWS = 100
"""Reasons that are kept. Devices write them, and could write a new one each time."""


class FailureRow(msgspec.Struct, kw_only=True):
    """Failures of one kind of phase with one reason."""

    kind: str
    code: str
    reason: str
    """The device's own text. For an app's exception it ends with the app's lines."""
    count: int = 0
    first_round: int
    last_round: int
    device: str
    """The first device that failed so."""


class FailureCounter:
    """Counts the failures of one run by kind, code and reason."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str], FailureRow] = {}

    def add(self, record: RoundRecord) -> bool:
        """Count a finished round; returns whether a device failed in it."""
        failed = [row for row in record.devices if row.status == "error"]
        for row in failed:
            key = (row.kind, row.code, row.reason)
            known = self._rows.get(key)
            if known is None and len(self._rows) >= ROWS:
                continue
            if known is None:
                known = self._rows[key] = FailureRow(
                    kind=row.kind,
                    code=row.code,
                    reason=row.reason,
                    first_round=record.round,
                    last_round=record.round,
                    device=row.device,
                )
            known.count, known.last_round = known.count + 1, record.round
        return bool(failed)

    def document(self) -> bytes:
        """All rows so far as JSON, in pandas' ``split`` layout."""
        columns = list(FailureRow.__struct_fields__)
        rows: list[list[Any]] = [
            [getattr(row, name) for name in columns] for row in self._rows.values()
        ]
        return msgspec.json.encode({"columns": columns, "data": rows})
