"""Ending a run that its cloud has left under way: for ``stop`` and ``run --resume``."""

from __future__ import annotations

from typing import Any

from fl_runtime.run.mlflow_runs import mlflow_client
from pipelines.run.clients import RunClients
from pipelines.run.executions import Executions
from registry.reconcile.runs import end_open_runs, find_open_runs


def settle(clients: RunClients, run: str, mlflow: Any = None) -> bool:
    """Record the end of a run whose pipeline has ended, as ``reconcile`` does for all runs; False
    when it is under way or has been concluded. ``mlflow``: an MlflowClient (default: the
    environment's).
    """
    mlflow, ended = mlflow or mlflow_client(), Executions(clients.sagemaker).ended
    found = [item for item in find_open_runs(mlflow, clients.runs, ended) if item.run == run]
    end_open_runs(mlflow, clients.runs, found)
    return bool(found)
