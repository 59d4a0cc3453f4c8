"""Tracks every round in MLflow without holding up the rounds.

All writes go through one background queue (:mod:`fl_runtime.server.telemetry.retry_queue`): while
MLflow is away the run goes on, and what was to be logged waits. A repeated write leaves what the
first one left, because metrics carry the time of their submission and artifacts are overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from edge.training.app_bundle import FlowerApp
from fl_runtime.run.concurrency import THREADS, Concurrency
from fl_runtime.run.ports import Clock, Sleep
from fl_runtime.run.records import DeviceRow, RoundRecord
from fl_runtime.run.spec import RunSpec
from fl_runtime.run.state import TerminalState
from fl_runtime.server.model.artifact import FinalModel
from fl_runtime.server.telemetry.failures import FAILURES_FILE, FailureCounter
from fl_runtime.server.telemetry.mlflow_store import Table
from fl_runtime.server.telemetry.retry_queue import PATIENCE_SECONDS, RetryQueue


class RunStore(Protocol):
    """Port: where a run's history is written (MlflowStore). Calls may be repeated."""

    def open_run(self, spec: RunSpec, details: Mapping[str, str]) -> str:
        """The store's id of the run."""

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Parameters; those that the run has keep their value."""

    def end_run(self, run_id: str, state: TerminalState, reason: str) -> None:
        """Set the terminal status."""

    def log_round(
        self, run_id: str, record: RoundRecord, rows: Sequence[DeviceRow], now_ms: int
    ) -> None:
        """One finished round; ``rows`` are those of all rounds so far, or none: the table stays."""

    def log_devices(self, run_id: str, rows: Sequence[DeviceRow]) -> None:
        """The table of all devices in all rounds."""

    def log_missing_rounds(
        self, run_id: str, records: Sequence[RoundRecord], rows: Sequence[DeviceRow], now_ms: int
    ) -> None:
        """The rounds that the store does not have yet."""

    def log_table(self, run_id: str, name: str, table: Table) -> None:
        """A table by columns."""

    def log_bytes(self, run_id: str, path: str, data: bytes) -> None:
        """An artifact."""

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        """A tag."""

    def log_model(self, run_id: str, app: FlowerApp, model: FinalModel) -> str:
        """The final model; returns the store's id of it."""


SHORT_TABLE = 1000
"""A table of devices of at most so many rows is written after each round."""
GROWTH = 1.25
"""A longer one when it has grown by this factor, and at the run's end."""


class RunTracker:
    """Writes one run's history to a store, in order, in the background."""

    def __init__(
        self,
        store: RunStore,
        spec: RunSpec,
        details: Mapping[str, str],
        *,
        sleep: Sleep = time.sleep,
        clock: Clock = time.monotonic,
        now: Callable[[], float] = time.time,
        concurrency: Concurrency = THREADS,
    ) -> None:
        self._store = store
        self._now = now
        self._queue = RetryQueue(
            sleep=sleep, clock=clock, executor=concurrency.background("mlflow")
        )
        self._devices: list[DeviceRow] = []
        self._failures = FailureCounter()
        self._written = 0
        self._run = self._queue.submit(lambda: store.open_run(spec, details))

    @property
    def run_id(self) -> str:
        """The store's id of the run; waits until the run exists."""
        return self._run.result()

    def log_round(self, record: RoundRecord) -> None:
        """Metrics at step = round, and the table of all devices so far.

        The table is written whole, so a long one is written when it has grown by a quarter: else
        the work would grow with the square of the rounds.
        """
        self._devices.extend(record.devices)
        count = len(self._devices)
        due = count <= SHORT_TABLE or count >= GROWTH * self._written
        # Fixed here: the call may run much later, and more than once.
        rows, now_ms = list(self._devices) if due else [], int(self._now() * 1000)
        if due:
            self._written = count
        self._queue.submit(lambda: self._store.log_round(self.run_id, record, rows, now_ms))
        if self._failures.add(record):
            self.log_bytes(FAILURES_FILE, self._failures.document())

    def resume(self, records: Sequence[RoundRecord]) -> None:
        """Log the rounds of an earlier server that the store does not have, each once."""
        failed = False
        for record in records:
            self._devices.extend(record.devices)
            failed |= self._failures.add(record)
        rows, now_ms = list(self._devices), int(self._now() * 1000)
        self._written = len(rows)
        self._queue.submit(
            lambda: self._store.log_missing_rounds(self.run_id, records, rows, now_ms)
        )
        if failed:
            self.log_bytes(FAILURES_FILE, self._failures.document())

    def complete_devices(self) -> None:
        """Write the table of devices, if rounds were logged since it was written."""
        rows = list(self._devices)
        if len(rows) > self._written:
            self._written = len(rows)
            self._queue.submit(lambda: self._store.log_devices(self.run_id, rows))

    def log_table(self, name: str, table: Table) -> None:
        """A table that the app left in its context."""
        self._queue.submit(lambda: self._store.log_table(self.run_id, name, table))

    def log_bytes(self, path: str, data: bytes) -> None:
        """An artifact at ``path``."""
        self._queue.submit(lambda: self._store.log_bytes(self.run_id, path, data))

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Parameters of the run: settings of the app and of its strategy."""
        self._queue.submit(lambda: self._store.log_params(self.run_id, params))

    def set_tag(self, key: str, value: str) -> None:
        """A tag of the run."""
        self._queue.submit(lambda: self._store.set_tag(self.run_id, key, value))

    def log_model(self, app: FlowerApp, model: FinalModel) -> Future[str]:
        """The final model. The result is the store's id of the model."""
        return self._queue.submit(lambda: self._store.log_model(self.run_id, app, model))

    def end(self, state: TerminalState, reason: str) -> None:
        """Set the terminal status, at once and without retries."""
        self._store.end_run(self.run_id, state, reason)

    def flush(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Complete the table of devices and wait for all writes.

        Raises:
            RunFailed: The store stays away for ``seconds``.

        """
        self.complete_devices()
        self._queue.flush(seconds)
