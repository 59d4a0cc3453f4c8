"""RunStore in memory: what a run's tracker wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fl_runtime.run.records import DeviceRow, RoundRecord
from fl_runtime.run.spec import RunSpec


class MemoryRunStore:
    """One run's history."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self.params: dict[str, Any] = {}
        self.rounds: list[int] = []
        self.tables: dict[str, Any] = {}
        self.artifacts: dict[str, bytes] = {}
        self.models: list[Any] = []
        self.devices: list[DeviceRow] = []
        self.ended: tuple[str, str] | None = None

    def open_run(self, spec: RunSpec, details: Mapping[str, str]) -> str:
        self.tags.update(details)
        return f"mlflow-{spec.run}"

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        self.params = {**params, **self.params}

    def end_run(self, run_id: str, state: str, reason: str) -> None:
        self.ended = (state, reason)

    def log_round(
        self, run_id: str, record: RoundRecord, rows: Sequence[DeviceRow], now_ms: int
    ) -> None:
        self.rounds.append(record.round)
        if rows:
            self.log_devices(run_id, rows)

    def log_devices(self, run_id: str, rows: Sequence[DeviceRow]) -> None:
        self.devices = list(rows)

    def log_missing_rounds(
        self, run_id: str, records: Sequence[RoundRecord], rows: Sequence[DeviceRow], now_ms: int
    ) -> None:
        self.rounds += [record.round for record in records if record.round not in self.rounds]

    def log_table(self, run_id: str, name: str, table: Any) -> None:
        self.tables[name] = table

    def log_bytes(self, run_id: str, path: str, data: bytes) -> None:
        self.artifacts[path] = data

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self.tags[key] = value

    def log_model(self, run_id: str, app: Any, model: Any) -> str:
        self.models.append(model)
        return "m-1"
