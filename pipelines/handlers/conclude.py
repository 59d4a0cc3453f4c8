"""The end of a run: answers the pipeline's callback with outputs, or with the reason of failure."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from edge.logs import event
from fl_runtime.run.errors import CAUSE_LIMIT
from fl_runtime.run.keys import model_key, spec_key
from fl_runtime.run.mlflow_runs import (
    ARTIFACT_ROOT_VARIABLE,
    MLFLOW_STATUS,
    end_run,
    mlflow_client,
    open_run,
)
from fl_runtime.run.records import COMPARISON, Comparison
from fl_runtime.run.scoring import NO_CHAMPION, score_of
from fl_runtime.run.spec import decode_spec
from fl_runtime.run.state import TerminalState
from pipelines.handlers.aws_clients import Services, services
from pipelines.run.names import FLOAT_OUTPUTS, STRING_OUTPUTS, package_group
from registry.evidence.compare import compare
from registry.policy import policy_in_force

logger = logging.getLogger(__name__)

OUTPUT_LIMIT = 1024
"""Characters of one callback output."""


def outputs_of(
    outcome: Mapping[str, Any], champion_score: float, execution_arn: str
) -> list[dict[str, str]]:
    """The callback's outputs: at most 50, each a string."""
    values = {
        **outcome,
        "champion_score": champion_score,
        "execution_arn": execution_arn,
        "score_text": outcome["score"],
    }
    return [
        {"Name": name, "Value": str(values[name])[:OUTPUT_LIMIT]}
        for name in (*STRING_OUTPUTS, *FLOAT_OUTPUTS)
    ]


def reason_of(error: Mapping[str, Any]) -> str:
    """One sentence from what Step Functions caught: our own causes as they are, others with their
    error name.
    """
    name, cause = str(error.get("Error", "")), str(error.get("Cause", ""))
    if name in ("RunFailed", "TooFewDevices"):
        return cause[:CAUSE_LIMIT]
    try:
        cause = str(json.loads(cause).get("errorMessage", cause))
    except (ValueError, AttributeError):
        pass  # not a Lambda's error document: the text itself is the cause
    return f"{name}: {cause}"[:CAUSE_LIMIT]


def champion_score(run: str, outcome: Mapping[str, Any], model_name: str, aws: Services) -> float:
    """The score that the model must reach to be registered: its champion's, or one that every model
    reaches.

    The champion's is that on the devices' data of this very run, as far as the policy wants it
    reached (``better_by``); where the two could
    not be compared, the score that the champion was registered with.
    """
    from registry.mlflow_registry import MlflowRegistry

    comparison = msgspec.json.decode(aws.objects.get(model_key(run, COMPARISON)), type=Comparison)
    goal = comparison.goal_for(outcome["metric"])
    same_data = compare(comparison, outcome["metric"], goal).champion_value
    if same_data is not None:
        score = score_of(same_data, goal)
        return score + min(0.0, policy_in_force(aws.objects).prechecks.better_by) * abs(score)
    champion = MlflowRegistry(mlflow_client()).champion(model_name)
    return champion.score if champion is not None and champion.score is not None else NO_CHAMPION


def end_in_mlflow(run: str, ended: TerminalState, reason: str, aws: Services) -> None:
    """Record how the run ended; a run that failed before its server started is recorded too.

    The pipeline gets its answer whether MLflow can be reached or not; ``mledgeops reconcile`` tells
    MLflow later.
    """
    try:
        spec, state = decode_spec(aws.objects.get(spec_key(run))), aws.runs.get(run)
        mlflow = mlflow_client()
        mlflow_run_id = open_run(mlflow, spec, {}, os.environ.get(ARTIFACT_ROOT_VARIABLE))
        end_run(mlflow, mlflow_run_id, ended, reason, state.execution_arn if state else "")
        aws.runs.update(run, mlflow_run_id=mlflow_run_id)
    except Exception as error:  # MLflow's stores raise their backends' errors
        logger.exception("mlflow-not-told")
        event(
            logger,
            "mlflow-not-told",
            logging.ERROR,
            run=run,
            status=MLFLOW_STATUS[ended],
            reason=f"{type(error).__name__}: {error}"[:300],
        )


def succeed(run: str, token: str, outcome: Mapping[str, Any], aws: Services) -> None:
    """MLflow first, then the table, then the pipeline: what reads the pipeline's success finds all
    of it.
    """
    spec = decode_spec(aws.objects.get(spec_key(run)))
    state = aws.runs.get(run)
    outputs = outputs_of(
        outcome,
        champion_score(run, outcome, package_group(spec.app_name), aws),
        state.execution_arn if state else "",
    )
    end_in_mlflow(run, "Succeeded", "", aws)
    if not aws.runs.update(run, unless=("Stopping",), state="Succeeded") and _was_stopped(run, aws):
        return
    _answer(
        run,
        lambda: aws.sagemaker.send_pipeline_execution_step_success(
            CallbackToken=token, OutputParameters=outputs
        ),
        aws,
    )


def fail(run: str, token: str, error: Mapping[str, Any], aws: Services) -> None:
    """The same order, with the reason."""
    reason = reason_of(error)
    end_in_mlflow(run, "Failed", reason, aws)
    if not aws.runs.update(
        run, unless=("Stopping",), state="Failed", reason=reason
    ) and _was_stopped(run, aws):
        return
    _answer(
        run,
        lambda: aws.sagemaker.send_pipeline_execution_step_failure(
            CallbackToken=token, FailureReason=reason
        ),
        aws,
    )


def _was_stopped(run: str, aws: Services) -> bool:
    """Whether somebody stopped the run while it was being concluded: then that is how it ended, in
    MLflow too.
    """
    state = aws.runs.get(run)
    if state is None or state.state not in ("Stopping", "Stopped"):
        return False
    end_in_mlflow(run, "Stopped", "The pipeline was stopped.", aws)
    return True


def _answer(run: str, call: Callable[[], Any], aws: Services) -> None:
    """Answer the callback; one that was answered before refuses a second answer, and needs none."""
    try:
        call()
    except aws.sagemaker.exceptions.ClientError as error:
        if error.response["Error"]["Code"] not in ("ValidationException", "ResourceNotFound"):
            raise
        event(logger, "answered-before", run=run, reason=str(error))


def handler(request: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point."""
    aws = services()
    state = aws.runs.get(request["run"])
    if state is not None and state.state in ("Stopping", "Stopped"):
        return {"run": request["run"], "ok": False}  # whoever stopped it has answered
    if request["ok"]:
        succeed(request["run"], request["token"], request["outcome"], aws)
    else:
        fail(request["run"], request["token"], request["error"], aws)
    event(logger, "concluded", run=request["run"], ok=request["ok"])
    return {"run": request["run"], "ok": request["ok"]}
