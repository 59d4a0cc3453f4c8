"""Runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fl_runtime.run.mlflow_runs import DEVICES_TAG, RUN_ID_TAG, STATUS_TAG
from pipelines.desk.runs import EVALUATE, check_run_id
from pipelines.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

ALWAYS = ("app", "status")
"""Shown even where all runs have the same."""


def compared(mlflow: Any, names: Sequence[str]) -> pd.DataFrame:
    """One column for each run: app and status, the settings that differ, its last metrics.

    Args:
        mlflow: An MlflowClient.
        names: Ids of at least two runs.

    Raises:
        UsageError: There is no such run, or less than two are given.

    """
    import pandas as pd

    if len(names) < 2:
        raise UsageError("Give at least two runs to compare.")
    runs = {name: _find(mlflow, name) for name in names}
    facts = pd.DataFrame({name: _facts(run) for name, run in runs.items()})
    differs = facts.nunique(axis=1, dropna=False) > 1
    keep = differs | facts.index.isin(ALWAYS)
    metrics = pd.DataFrame({name: _metrics(run) for name, run in runs.items()})
    return pd.concat([facts[keep], metrics.astype(object)])


def _find(mlflow: Any, name: str) -> Any:
    experiments = [item.experiment_id for item in mlflow.search_experiments()]
    query = f"tags.`{RUN_ID_TAG}` = '{check_run_id(name)}'"
    found = mlflow.search_runs(experiments, query, max_results=1)
    if not found:
        raise UsageError(f"There is no run {name!r}: desk.runs() lists them.")
    return found[0]


def _facts(run: Any) -> dict[str, str]:
    tags = run.data.tags
    return {
        "app": tags.get("mledgeops.app", ""),
        "status": tags.get(STATUS_TAG, "Running"),
        "app digest": tags.get("mledgeops.app_digest", "")[:12],
        "fleet": tags.get("mledgeops.fleet", ""),
        "devices": tags.get(DEVICES_TAG, ""),
        **run.data.params,
    }


def _metrics(run: Any) -> dict[str, float]:
    """Its last metrics of evaluation, and seconds, as MLflow names them."""
    wanted = (EVALUATE, "seconds.total")
    return {
        name: value for name, value in sorted(run.data.metrics.items()) if name.startswith(wanted)
    }
