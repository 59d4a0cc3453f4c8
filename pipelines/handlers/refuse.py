"""The pipeline's Refuse step: the model missed its minimum or its champion's score.

MLflow records the run as failed, with our status NotBetter. The step's output gives the
pipeline the same sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fl_runtime.run.mlflow_runs import NOT_BETTER, STATUS_TAG, end_run
from fl_runtime.run.scoring import NO_CHAMPION, NOT_JUDGED
from pipelines.handlers.aws_clients import Services, services


def reason_of(request: Mapping[str, Any]) -> str:
    """Why the model is refused, in numbers: those that it missed or met, none that is not set."""
    score, minimum = float(request["score"]), float(request["minimum_score"])
    champion = float(request["champion_score"])
    if request["metric"] == NOT_JUDGED:
        return f"No metric judges the model; the minimum is {minimum:.6g}."
    told = f"The model's {request['metric']} gives a score of {score:.6g}"
    if "value" in request:  # pipelines that were published by 0.4 do not give it
        value = float(request["value"])
        told = f"The model's {request['metric']} is {value:.6g}"
        if value != score:  # less is better, so the score has the other sign
            told += f", which gives a score of {score:.6g}"
    wanted = []
    if minimum > NO_CHAMPION:
        wanted.append(f"the minimum is {minimum:.6g}")
    if champion > NO_CHAMPION:
        wanted.append(f"the champion has {champion:.6g}")
    return f"{told}; {' and '.join(wanted)}." if wanted else f"{told}."


def refuse(request: Mapping[str, Any], aws: Services) -> dict[str, str]:
    """End the run in MLflow; returns the step's outputs."""
    reason = reason_of(request)
    mlflow, run_id = aws.mlflow(), request["mlflow_run_id"]
    end_run(mlflow, run_id, "Failed", reason)
    mlflow.set_tag(run_id, STATUS_TAG, NOT_BETTER)
    return {"run": request["run"], "reason": reason}


def handler(request: Mapping[str, Any], context: object) -> dict[str, str]:
    """Lambda entry point of the pipeline's Refuse step."""
    return refuse(request, services())
