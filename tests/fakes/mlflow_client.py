"""A small in-memory MLflow client: the calls that we make, with MLflow's meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any


@dataclass
class MemoryRun:
    run_id: str
    experiment_id: str
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    metrics: list[Any] = field(default_factory=list)
    artifacts: dict[str, Any] = field(default_factory=dict)
    status: str = "RUNNING"

    @property
    def info(self) -> Any:
        return SimpleNamespace(run_id=self.run_id, status=self.status)

    @property
    def data(self) -> Any:
        return SimpleNamespace(tags=self.tags, params=self.params)


class MemoryMlflow:
    """Experiments and runs in dictionaries."""

    def __init__(self) -> None:
        self.experiments: dict[str, tuple[str, str | None]] = {}
        self.runs: dict[str, MemoryRun] = {}

    def get_experiment_by_name(self, name: str) -> Any:
        found = self.experiments.get(name)
        return SimpleNamespace(experiment_id=found[0]) if found else None

    def create_experiment(self, name: str, artifact_location: str | None = None) -> str:
        self.experiments[name] = (f"e{len(self.experiments)}", artifact_location)
        return self.experiments[name][0]

    def create_run(self, experiment_id: str, run_name: str, tags: dict[str, str]) -> MemoryRun:
        run = MemoryRun(f"m{len(self.runs)}", experiment_id, dict(tags))
        self.runs[run.run_id] = run
        return run

    def search_runs(self, experiments: list[str], query: str, max_results: int) -> list[MemoryRun]:
        """Only conditions of the form ``tags.`KEY` = 'VALUE'``."""
        key, value = query.split("`")[1], query.split("'")[1]
        found = [r for r in self.runs.values() if r.tags.get(key) == value]
        return [r for r in found if r.experiment_id in experiments][:max_results]

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self.runs[run_id].tags[key] = value

    def get_run(self, run_id: str) -> MemoryRun:
        return self.runs[run_id]

    def log_param(self, run_id: str, key: str, value: Any) -> None:
        if self.runs[run_id].params.setdefault(key, str(value)) != str(value):
            raise ValueError(f"Changing param values is not allowed: {key}")

    def log_batch(self, run_id: str, metrics: list[Any]) -> None:
        self.runs[run_id].metrics += metrics

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        return [point for point in self.runs[run_id].metrics if point.key == key]

    def log_dict(self, run_id: str, document: Any, path: str) -> None:
        self.runs[run_id].artifacts[path] = document

    def log_artifact(self, run_id: str, file: str, folder: str | None) -> None:
        name = "/".join(filter(None, (folder, Path(file).name)))
        self.runs[run_id].artifacts[name] = Path(file).read_bytes()

    def set_terminated(self, run_id: str, status: str) -> None:
        self.runs[run_id].status = status
