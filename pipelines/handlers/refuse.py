"""Below the bar: the run is recorded as failed in MLflow too, with the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fl_runtime.run.mlflow_runs import end_run, mlflow_client
from pipelines.handlers.aws_clients import set_up_logs


def reason_of(request: Mapping[str, Any]) -> str:
    """The same sentence as the pipeline's Fail step."""
    return (
        f"The model's {request['metric']} gives a score of {request['score']} where the bar is {request['minimum_score']} "
        f"and the champion has {request['champion_score']}"
    )


def handler(request: Mapping[str, Any], context: object) -> dict[str, str]:
    """Lambda entry point of the pipeline's Refuse step."""
    set_up_logs()
    end_run(mlflow_client(), request["mlflow_run_id"], "Failed", reason_of(request))
    return {"run": request["run"]}
