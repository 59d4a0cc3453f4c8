"""Runs that have ended while MLflow, or the table of runs, could not be told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fl_runtime.run.mlflow_runs import PIPELINE_TAG, RUN_ID_TAG, end_run
from fl_runtime.run.state import TERMINAL_STATES, RunTable, TerminalState
from registry.reconcile.model import Repair

LOST = "The pipeline ended while the run was under way, and nobody concluded the run."


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
        lost = self.reason == LOST
        why = "its pipeline has ended" if lost else "the run has ended, and MLflow says RUNNING"
        return Repair(act="set-tag", subject=self.run, value=self.state, why=why)


def find_open_runs(
    mlflow: Any, runs: RunTable, pipeline_ended: Callable[[str], bool]
) -> list[OpenRun]:
    """Runs that MLflow should no longer call RUNNING.

    A run whose pipeline has ended has ended too, whatever the table says: both are told before the
    pipeline is, so its cloud died in between.

    Args:
        mlflow: An MlflowClient.
        runs: The table of runs.
        pipeline_ended: Whether a pipeline execution, by its ARN, has ended.

    """
    experiments = [experiment.experiment_id for experiment in mlflow.search_experiments()]
    if not experiments:  # MLflow would search the default experiment
        return []
    query = f"attributes.status = 'RUNNING' AND tags.`{RUN_ID_TAG}` != ''"
    found = []
    for item in mlflow.search_runs(experiments, query):
        run, pipeline = item.data.tags[RUN_ID_TAG], item.data.tags.get(PIPELINE_TAG, "")
        state = runs.get(run)
        if state is not None and state.state in TERMINAL_STATES:
            found.append(OpenRun(run, item.info.run_id, state.state, state.reason))
        elif pipeline and pipeline_ended(pipeline):
            found.append(OpenRun(run, item.info.run_id, "Failed", LOST))
    return found


def end_open_runs(mlflow: Any, runs: RunTable, found: Iterable[OpenRun]) -> None:
    """Tell the table and MLflow how they ended."""
    for run in found:
        runs.update(run.run, state=run.state, reason=run.reason)
        end_run(mlflow, run.mlflow_run_id, run.state, run.reason)
