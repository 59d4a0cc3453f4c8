"""Every round in MLflow, without holding up the rounds.

One thread does all calls in order, each until it succeeds: while MLflow is down the run goes on,
and what was to be
logged waits. A call that is repeated leaves what the first one left: metrics carry the time at
which they were
submitted, artifacts are written over. MLflow's own ids are used throughout: no global active run.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import msgspec

from edge.logs import event
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.records import DeviceRow, RoundRecord
from fl_runtime.run.spec import RunSpec

logger = logging.getLogger(__name__)

RETRY_SECONDS = (0.5, 15.0)
"""First and longest wait between two tries."""
PATIENCE_SECONDS = 600.0
"""How long a run that has nothing else to do waits for MLflow."""

Table = Mapping[str, Sequence[Any]]


class Tracker(Protocol):
    """Port: where a run's history goes."""

    def log_round(self, record: RoundRecord) -> None:
        """One finished round."""

    def log_table(self, name: str, table: Table) -> None:
        """A table by columns."""


class MlflowTracker:
    """:class:`Tracker` on an MLflow tracking server or store (``MLFLOW_TRACKING_URI``)."""

    def __init__(
        self,
        spec: RunSpec,
        details: Mapping[str, str],
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sleep = sleep
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._pending: list[Future[Any]] = []
        self._devices: list[DeviceRow] = []
        self._give_up_at = math.inf
        self._run: Future[str] = self._submit(lambda: open_run(spec, details))

    @property
    def run_id(self) -> str:
        """MLflow's id of the run; waits until it exists."""
        return self._run.result()

    def log_round(self, record: RoundRecord) -> None:
        """Metrics at step = round, and the per-device table so far as an artifact."""
        self._devices.extend(record.devices)
        rows, now = list(self._devices), int(time.time() * 1000)
        self._submit(lambda: _log_round(self.run_id, record, rows, now))

    def resume(self, records: Sequence[RoundRecord]) -> None:
        """Rounds that an earlier server finished: log those that MLflow has not, each once."""
        for record in records:
            self._devices.extend(record.devices)
        rows, now = list(self._devices), int(time.time() * 1000)
        self._submit(lambda: _log_missing(self.run_id, records, rows, now))

    def log_table(self, name: str, table: Table) -> None:
        """``tables/{name}.json``, readable by ``mlflow.load_table``."""
        self._submit(lambda: _log_table(self.run_id, name, table))

    def log_bytes(self, path: str, data: bytes) -> None:
        """An artifact at ``path``."""
        folder, _, name = path.rpartition("/")
        self._submit(lambda: _log_bytes(self.run_id, folder, name, data))

    def set_tag(self, key: str, value: str) -> None:
        """A tag of the run."""
        self._submit(lambda: _client().set_tag(self.run_id, key, value))

    def submit(self, call: Callable[[], None]) -> None:
        """Run something else in the same order."""
        self._submit(call)

    def flush(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for all calls; raises RunFailed when MLflow stays away for so long."""
        self._give_up_at = self._clock() + seconds
        for future in self._pending:
            future.result()
        self._pending.clear()

    def _submit(self, call: Callable[[], Any]) -> Future[Any]:
        future = self._pool.submit(self._until_done, call)
        self._pending.append(future)
        return future

    def _until_done(self, call: Callable[[], Any]) -> Any:
        pause = RETRY_SECONDS[0]
        while True:
            try:
                return call()
            except RunFailed:  # the app's own fault: no waiting will mend it
                raise
            except (
                Exception
            ) as error:  # MLflow's stores raise their own backends' errors: SQL, HTTP, S3
                if self._clock() > self._give_up_at:
                    raise RunFailed(
                        "mlflow",
                        f"MLflow does not take what the run has to log ({type(error).__name__}: {error}); the rounds are kept, and "
                        "`mledgeops run --resume` ends the run once MLflow is back.",
                    ) from error
                event(
                    logger,
                    "mlflow-waits",
                    logging.WARNING,
                    waiting=len(self._pending),
                    reason=f"{type(error).__name__}: {error}"[:300],
                )
                self._sleep(pause)
                pause = min(pause * 2, RETRY_SECONDS[1])


def open_run(spec: RunSpec, details: Mapping[str, str]) -> str:
    """Find or make the MLflow run of a federated run: a server that starts again goes on with the
    same one.
    """
    client = _client()
    found = find_run(spec.run, spec.experiment)
    if found is not None:
        return found
    experiment = client.get_experiment_by_name(spec.experiment)
    experiment_id = (
        experiment.experiment_id
        if experiment
        else client.create_experiment(
            spec.experiment, artifact_location=os.environ.get("MLEDGEOPS_ARTIFACT_ROOT")
        )
    )
    tags = {
        "mledgeops.run_id": spec.run,
        "mledgeops.fleet": spec.fleet,
        "mledgeops.app": spec.app_name,
        "mledgeops.app_digest": spec.app,
        "mledgeops.pipeline_execution_arn": spec.pipeline_execution_arn,
        "mlflow.source.name": spec.app_name,
        **details,
    }
    run_id: str = client.create_run(experiment_id, run_name=spec.run, tags=tags).info.run_id
    parameters = {
        "num_rounds": spec.num_rounds,
        "strategy": spec.strategy or "(the app's)",
        "devices_per_proxy": spec.devices_per_proxy,
        "min_devices": spec.min_devices,
        "seed": spec.seed,
        **{f"app.{k}": v for k, v in spec.run_config.items()},
        **{f"strategy.{k}": v for k, v in spec.strategy_params.items()},
    }
    for key, value in parameters.items():
        client.log_param(run_id, key, value)
    return run_id


def find_run(run: str, experiment: str) -> str | None:
    """MLflow's id of a federated run, if it has one."""
    client = _client()
    place = client.get_experiment_by_name(experiment)
    if place is None:
        return None
    found = client.search_runs(
        [place.experiment_id], f"tags.`mledgeops.run_id` = '{run}'", max_results=1
    )
    return found[0].info.run_id if found else None


def end_run(run_id: str, status: str, reason: str = "", execution_arn: str = "") -> None:
    """Set MLflow's terminal status (FINISHED, FAILED or KILLED), our reason, and who conducted the
    run.
    """
    client = _client()
    if execution_arn:
        client.set_tag(run_id, "mledgeops.execution_arn", execution_arn)
    if reason:
        client.set_tag(run_id, "mledgeops.reason", reason)
    client.set_tag(
        run_id,
        "mledgeops.status",
        {"FINISHED": "Succeeded", "KILLED": "Stopped"}.get(status, "Failed"),
    )
    client.set_terminated(run_id, status)


def _client() -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    return MlflowClient()


def _log_round(run_id: str, record: RoundRecord, rows: list[DeviceRow], now: int) -> None:
    from mlflow.entities import Metric

    values: dict[str, float] = {
        "participants": record.participants,
        "bytes.up": record.bytes.up,
        "bytes.down": record.bytes.down,
    }
    values.update(
        {f"seconds.{key}": value for key, value in msgspec.structs.asdict(record.seconds).items()}
    )
    values.update({f"failures.{reason}": count for reason, count in record.failures.items()})
    for group, metrics in (
        ("train", record.train),
        ("evaluate", record.evaluate),
        ("server", record.server),
    ):
        values.update(
            {
                f"{group}.{key}": value
                for key, value in metrics.items()
                if isinstance(value, int | float)
            }
        )
    client = _client()
    client.log_batch(
        run_id,
        metrics=[Metric(key, float(value), now, record.round) for key, value in values.items()],
    )
    columns: dict[str, list[Any]] = {name: [] for name in DeviceRow.__struct_fields__}
    for row in rows:
        for name, value in msgspec.structs.asdict(row).items():
            columns[name].append(
                msgspec.json.encode(value).decode() if isinstance(value, dict) else value
            )
    client.log_dict(
        run_id,
        {
            "columns": list(columns),
            "data": [list(row) for row in zip(*columns.values(), strict=True)],
        },
        "devices.json",
    )
    event(logger, "round-logged", round=record.round)


def _log_missing(
    run_id: str, records: Sequence[RoundRecord], rows: list[DeviceRow], now: int
) -> None:
    logged = {point.step for point in _client().get_metric_history(run_id, "participants")}
    for record in records:
        if record.round not in logged:
            _log_round(run_id, record, rows, now)


def _log_table(run_id: str, name: str, table: Table) -> None:
    """Written whole: MLflow's own log_table appends, so a call that is repeated would double the
    rows.
    """
    columns = {key: list(column) for key, column in table.items()}
    data = [list(row) for row in zip(*columns.values(), strict=True)]
    _client().log_dict(run_id, {"columns": list(columns), "data": data}, f"tables/{name}.json")


def _log_bytes(run_id: str, folder: str, name: str, data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / name
        file.write_bytes(data)
        _client().log_artifact(run_id, str(file), folder or None)
