"""Past runs and runs under way, as MLflow has them: no cloud needs to run for that."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from edge.typed import convert
from fl_runtime.run.mlflow_runs import (
    DEVICES_TAG,
    METRIC_TAG,
    OUTCOME_TAG,
    REASON_TAG,
    RUN_ID_TAG,
    STATUS_TAG,
    VALUE_TAG,
)
from fl_runtime.run.scoring import choose_metric
from fl_runtime.server.telemetry.failures import FAILURES_FILE, FailureRow
from pipelines.errors import UsageError

PREFIX = "mledgeops."
EVALUATE = "evaluate."
_NAME = re.compile(r"[A-Za-z0-9_-]+")


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A run in one line."""

    run_id: str
    app: str
    status: str
    """``Running``, or the run's terminal state."""
    devices: int | None
    rounds: int | None
    """Rounds that it was to have."""
    metric: str
    """The metric that judges the model; empty before there is any."""
    value: float | None
    """The metric's value: the model's, else that of the last round."""
    seconds: float
    """Since the start, or until the end."""
    started: float
    """Seconds since the epoch."""
    mlflow_run_id: str
    pipeline_execution_arn: str
    outcome: str = ""
    """``model`` or ``analysis``; empty before the end, and in runs of versions before 0.5."""
    reason: str = ""
    """Why it has no model."""


class RunResults(msgspec.Struct, frozen=True, kw_only=True):
    """What an app left beside its model."""

    tables: dict[str, dict[str, list[Any]]] = {}
    """By name: columns of equal length."""
    files: dict[str, int] = {}
    """Files that the ServerApp wrote, by path: their bytes. MLflow has them below ``files/``."""
    failures: list[FailureRow] = []
    """What went wrong on devices, by reason."""


def check_run_id(run: str) -> str:
    """A run's id as it is.

    Raises:
        UsageError: It cannot be one.

    """
    if not _NAME.fullmatch(run):
        raise UsageError(f"{run!r} is not a run's id.")
    return run


class RunArchive:
    """Reads the runs of all experiments."""

    def __init__(self, mlflow: Any) -> None:
        """``mlflow``: an ``MlflowClient``."""
        self._mlflow = mlflow

    def runs(self) -> list[RunSummary]:
        """All runs, newest first."""
        return [summary_of(run) for run in self._search("")]

    def get(self, run: str) -> tuple[RunSummary, list[dict[str, float]]]:
        """A run and its rounds: ``round`` and the value of each metric.

        Raises:
            UsageError: There is no such run.

        """
        found = self._search(f" and tags.`{RUN_ID_TAG}` = '{check_run_id(run)}'")
        if not found:
            raise UsageError(f"There is no run {run!r}: `mledgeops runs` lists them.")
        return summary_of(found[0]), self._rounds(found[0])

    def results(self, mlflow_run_id: str) -> RunResults:
        """The tables and the files of a run."""
        tables = {
            path.removeprefix("tables/").removesuffix(".json"): self._table(mlflow_run_id, path)
            for path, _ in self._artifacts(mlflow_run_id, "tables")
        }
        found = self._artifacts(mlflow_run_id, "files")
        files = {path.removeprefix("files/"): size for path, size in found}
        return RunResults(tables=tables, files=files, failures=self._failures(mlflow_run_id))

    def _failures(self, mlflow_run_id: str) -> list[FailureRow]:
        found = {item.path for item in self._mlflow.list_artifacts(mlflow_run_id, None)}
        if FAILURES_FILE not in found:
            return []
        columns = self._table(mlflow_run_id, FAILURES_FILE)
        rows = zip(*columns.values(), strict=True)
        return [convert(dict(zip(columns, row, strict=True)), FailureRow) for row in rows]

    def _artifacts(self, mlflow_run_id: str, folder: str) -> Iterator[tuple[str, int]]:
        for item in self._mlflow.list_artifacts(mlflow_run_id, folder):
            if item.is_dir:
                yield from self._artifacts(mlflow_run_id, item.path)
            else:
                yield item.path, int(item.file_size or 0)

    def _table(self, mlflow_run_id: str, path: str) -> dict[str, list[Any]]:
        with tempfile.TemporaryDirectory() as folder:
            file = self._mlflow.download_artifacts(mlflow_run_id, path, folder)
            document = msgspec.json.decode(Path(file).read_bytes())
        rows = document["data"]
        return {name: [row[at] for row in rows] for at, name in enumerate(document["columns"])}

    def _search(self, condition: str) -> list[Any]:
        experiments = [item.experiment_id for item in self._mlflow.search_experiments()]
        query = f"tags.`{RUN_ID_TAG}` != ''{condition}"
        order = ["attributes.start_time DESC"]
        found: list[Any] = []
        token: str | None = None
        while True:
            page = self._mlflow.search_runs(experiments, query, order_by=order, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _rounds(self, run: Any) -> list[dict[str, float]]:
        rounds: dict[int, dict[str, float]] = {}
        for key in run.data.metrics:
            for point in self._mlflow.get_metric_history(run.info.run_id, key):
                rounds.setdefault(point.step, {"round": point.step})[key] = point.value
        return [rounds[number] for number in sorted(rounds)]


def summary_of(run: Any) -> RunSummary:
    """An MLflow run's summary."""
    tags, ended = run.data.tags, run.info.end_time
    metric, value = _judged(tags, run.data.metrics)
    return RunSummary(
        run_id=tags.get(RUN_ID_TAG, ""),
        app=tags.get(f"{PREFIX}app", ""),
        status=tags.get(STATUS_TAG, "Running"),
        devices=_integer(tags.get(DEVICES_TAG)),
        rounds=_integer(run.data.params.get("num_rounds")) or None,
        metric=metric,
        value=value,
        seconds=round((ended / 1000 if ended else time.time()) - run.info.start_time / 1000, 1),
        started=run.info.start_time / 1000,
        mlflow_run_id=run.info.run_id,
        pipeline_execution_arn=tags.get(f"{PREFIX}pipeline_execution_arn", ""),
        outcome=tags.get(OUTCOME_TAG, ""),
        reason=tags.get(REASON_TAG, ""),
    )


def _judged(tags: dict[str, str], metrics: dict[str, float]) -> tuple[str, float | None]:
    """The metric that judges the model and its value; ("", None) when there is none yet."""
    if METRIC_TAG in tags and VALUE_TAG in tags:
        return tags[METRIC_TAG], float(tags[VALUE_TAG])
    reported = [name.removeprefix(EVALUATE) for name in metrics if name.startswith(EVALUATE)]
    if not reported:
        return "", None
    # Runs under way, and those of versions before 0.5, do not say by what they are judged.
    name = choose_metric(sorted(reported), "")
    return name, metrics[f"{EVALUATE}{name}"]


def _integer(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None
