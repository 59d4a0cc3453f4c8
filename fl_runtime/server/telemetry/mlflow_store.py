"""What a run writes to MLflow, each call idempotent.

MLflow's ids are passed explicitly: there is no global active run, so threads cannot mix up runs.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edge.logs import event
from edge.training.app_bundle import FlowerApp
from fl_runtime.run import mlflow_runs
from fl_runtime.run.records import DeviceRow, RoundRecord
from fl_runtime.run.spec import RunSpec
from fl_runtime.run.state import TerminalState
from fl_runtime.server.model.artifact import FinalModel
from fl_runtime.server.model.mlflow_logging import log_to_mlflow

logger = logging.getLogger(__name__)

Table = Mapping[str, Sequence[Any]]
"""A table by columns of equal length."""


class MlflowStore:
    """A run's record in an MLflow tracking server or store.

    ``connect`` makes a client. It is called for each write, because making one already reaches the
    store, which may be away.
    """

    def __init__(self, connect: Callable[[], Any], artifact_root: str | None) -> None:
        self._connect = connect
        self._artifact_root = artifact_root

    def open_run(self, spec: RunSpec, details: Mapping[str, str]) -> str:
        """MLflow's id of the run; a server that starts again gets the same one."""
        return mlflow_runs.open_run(self._connect(), spec, details, self._artifact_root)

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Parameters that the run does not have yet."""
        mlflow_runs.log_params(self._connect(), run_id, params)

    def end_run(self, run_id: str, state: TerminalState, reason: str) -> None:
        """Set the terminal status."""
        mlflow_runs.end_run(self._connect(), run_id, state, reason)

    def log_round(
        self, run_id: str, record: RoundRecord, rows: Sequence[DeviceRow], now_ms: int
    ) -> None:
        """Metrics at step = round, and ``devices.json`` with the rows, if there are any.

        The points carry the time of the round's end. So a repeated call writes the same points,
        even when a server logs a round that its predecessor, only paused, logs as well.
        ``now_ms``: Unix time in milliseconds for a record without that time.
        """
        from mlflow.entities import Metric

        client, moment = self._connect(), int(record.finished_at * 1000) or now_ms
        points = [
            Metric(key, float(value), moment, record.round)
            for key, value in metrics_of(record).items()
        ]
        client.log_batch(run_id, metrics=points)
        if rows:
            self.log_devices(run_id, rows)
        event(logger, "round-logged", round=record.round)

    def log_devices(self, run_id: str, rows: Sequence[DeviceRow]) -> None:
        """``devices.json`` with the rows of all rounds so far."""
        self._connect().log_dict(run_id, _as_document(_device_columns(rows)), "devices.json")

    def log_missing_rounds(
        self, run_id: str, records: Sequence[RoundRecord], rows: Sequence[DeviceRow], now_ms: int
    ) -> None:
        """Log the rounds that MLflow does not have yet."""
        history = self._connect().get_metric_history(run_id, "participants")
        logged = {point.step for point in history}
        for record in records:
            if record.round not in logged:
                self.log_round(run_id, record, rows, now_ms)

    def log_table(self, run_id: str, name: str, table: Table) -> None:
        """``tables/{name}.json``, readable by ``mlflow.load_table``.

        Written whole, because MLflow's own ``log_table`` appends: a retry would double the rows.
        """
        self._connect().log_dict(run_id, _as_document(table), f"tables/{name}.json")

    def log_bytes(self, run_id: str, path: str, data: bytes) -> None:
        """An artifact at ``path``."""
        folder, _, name = path.rpartition("/")
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / name
            file.write_bytes(data)
            self._connect().log_artifact(run_id, str(file), folder or None)

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        """A tag of the run."""
        self._connect().set_tag(run_id, key, value)

    def log_model(self, run_id: str, app: FlowerApp, model: FinalModel) -> str:
        """Log the final model; returns MLflow's model id."""
        return log_to_mlflow(run_id, app, model)


def metrics_of(record: RoundRecord) -> dict[str, float]:
    """A round's metrics by their names in MLflow."""
    values: dict[str, float] = {
        "participants": record.participants,
        "bytes.up": record.bytes.up,
        "bytes.down": record.bytes.down,
    }
    seconds = msgspec.structs.asdict(record.seconds)
    values.update({f"seconds.{key}": value for key, value in seconds.items()})
    values.update({f"failures.{reason}": count for reason, count in record.failures.items()})
    groups = {
        "train": record.train,
        "evaluate": record.evaluate,
        "robust": record.robust,
        "server": record.server,
    }
    for group, metrics in groups.items():
        for key, value in metrics.items():
            if isinstance(value, int | float):
                values[mlflow_runs.allowed_name(f"{group}.{key}")] = value
    return values


def _device_columns(rows: Sequence[DeviceRow]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in DeviceRow.__struct_fields__}
    for row in rows:
        for name, value in msgspec.structs.asdict(row).items():
            flat = msgspec.json.encode(value).decode() if isinstance(value, dict) else value
            columns[name].append(flat)
    return columns


def _as_document(table: Table) -> dict[str, Any]:
    """Pandas' ``split`` layout, which ``mlflow.load_table`` reads."""
    return {
        "columns": list(table),
        "data": [list(row) for row in zip(*table.values(), strict=True)],
    }
