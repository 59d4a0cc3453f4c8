"""Runs that have ended while MLflow could not be told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fl_runtime.run.mlflow_runs import RUN_ID_TAG, end_run
from fl_runtime.run.state import TERMINAL_STATES, RunTable, TerminalState
from registry.reconcile.model import Repair


@dataclass(frozen=True)
class OpenRun:
    """An MLflow run that is still RUNNING although its federated run has ended."""

    run: str
    mlflow_run_id: str
    state: TerminalState
    reason: str

    @property
    def repair(self) -> Repair:
        """As the other repairs are shown."""
        why = "the run has ended, and MLflow says RUNNING"
        return Repair(act="set-tag", subject=self.run, value=self.state, why=why)


def find_open_runs(mlflow: Any, runs: RunTable) -> list[OpenRun]:
    """``mlflow``: an MlflowClient."""
    experiments = [experiment.experiment_id for experiment in mlflow.search_experiments()]
    if not experiments:  # MLflow would search the default experiment
        return []
    query = f"attributes.status = 'RUNNING' AND tags.`{RUN_ID_TAG}` != ''"
    found = []
    for item in mlflow.search_runs(experiments, query):
        run = item.data.tags[RUN_ID_TAG]
        state = runs.get(run)
        if state is not None and state.state in TERMINAL_STATES:
            found.append(OpenRun(run, item.info.run_id, state.state, state.reason))
    return found


def end_open_runs(mlflow: Any, runs: Iterable[OpenRun]) -> None:
    """Tell MLflow how they ended."""
    for run in runs:
        end_run(mlflow, run.mlflow_run_id, run.state, run.reason)
