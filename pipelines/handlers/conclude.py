"""Concludes a run: MLflow, the runs table, then the pipeline's callback get its outcome."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from edge.logs import event
from edge.typed import from_json
from fl_runtime.run.errors import CAUSE_LIMIT
from fl_runtime.run.keys import model_key, spec_key
from fl_runtime.run.records import COMPARISON, Comparison
from fl_runtime.run.scoring import NO_CHAMPION, NOT_JUDGED, score_of
from fl_runtime.run.spec import RunSpec, decode_spec
from fl_runtime.run.state import TerminalState
from pipelines.handlers.aws_clients import Services, prefix_of, services
from pipelines.handlers.callback import STOPPED, answer_failure, answer_success, end_in_mlflow
from pipelines.run.names import (
    FLOAT_OUTPUTS,
    MODEL_OUTCOME,
    STRING_OUTPUTS,
    links_itself,
    package_group,
)
from registry.errors import RegistryError
from registry.evidence.compare import compare
from registry.policy import policy_in_force

logger = logging.getLogger(__name__)

OUTPUT_LIMIT = 1024
"""Characters of one callback output."""


def outputs_of(
    outcome: Mapping[str, Any], champion_score: float, execution_arn: str
) -> list[dict[str, str]]:
    """The callback's outputs: at most 50, each a string."""
    judged = outcome["metric"] != NOT_JUDGED
    values = {
        # A server of an earlier version ends with a model, or fails.
        "outcome": MODEL_OUTCOME,
        **outcome,
        "champion_score": champion_score,
        "execution_arn": execution_arn,
        # A run that was under way when this function was replaced gives one score.
        "score_text": outcome.get("reported_score", outcome["score"]) if judged else NOT_JUDGED,
    }
    return [
        {"Name": name, "Value": str(values[name])[:OUTPUT_LIMIT]}
        for name in (*STRING_OUTPUTS, *FLOAT_OUTPUTS)
    ]


def reason_of(error: Mapping[str, Any]) -> str:
    """One sentence from what Step Functions caught: our own errors by their cause, others with
    their name.
    """
    name, cause = str(error.get("Error", "")), str(error.get("Cause", ""))
    if name in ("RunFailed", "TooFewDevices"):
        return cause[:CAUSE_LIMIT]
    try:
        cause = str(json.loads(cause).get("errorMessage", cause))
    except (ValueError, AttributeError):
        pass  # not a Lambda function's error document, so the text itself is the cause
    return f"{name}: {cause}"[:CAUSE_LIMIT]


def champion_score(run: str, outcome: Mapping[str, Any], model_name: str, aws: Services) -> float:
    """The score that the model must reach to be registered.

    The champion's on the devices' data of this very run, relaxed by the policy's negative
    ``better_by``; where the two could not be compared, the champion's score at its registration;
    NO_CHAMPION without a champion, for a model that nothing judges and for a run without one.
    """
    if outcome["metric"] == NOT_JUDGED:
        return NO_CHAMPION
    from registry.mlflow_registry import MlflowRegistry

    comparison = from_json(aws.objects.get(model_key(run, COMPARISON)), type=Comparison)
    goal = comparison.goal_for(outcome["metric"])
    same_data = compare(comparison, outcome["metric"], goal).champion_robust
    if same_data is not None:
        score = score_of(same_data, goal)
        return score + min(0.0, policy_in_force(aws.objects).prechecks.better_by) * abs(score)
    champion = MlflowRegistry(aws.mlflow()).champion(model_name)
    return champion.score if champion is not None and champion.score is not None else NO_CHAMPION


def succeed(run: str, token: str, outcome: Mapping[str, Any], aws: Services) -> None:
    """Conclude a run that made a model or an analysis. MLflow and the table come first, so that
    whoever reads the pipeline's success finds them complete.
    """
    spec, state = decode_spec(aws.objects.get(spec_key(run))), aws.runs.get(run)
    if outcome.get("outcome", MODEL_OUTCOME) == MODEL_OUTCOME:
        _sign_run(spec, aws)
    outputs = outputs_of(
        outcome,
        champion_score(run, outcome, package_group(spec.app_name), aws),
        state.execution_arn if state else "",
    )
    if _ended(run, "Succeeded", "", aws):
        answer_success(token, outputs, aws)


def _sign_run(spec: RunSpec, aws: Services) -> None:
    """Have the record signed by which a package of another pipeline will be known as the run's.

    The run has succeeded whether this does or not: without the record, ``mledgeops reconcile``
    links.
    """
    prefix = prefix_of(aws.state_machine)
    if links_itself(spec.pipeline_execution_arn, prefix, spec.app_name):
        return
    try:
        aws.link.sign_run(spec.run)
    except (RegistryError, BotoCoreError, ClientError) as error:
        event(logger, "run-not-signed", logging.ERROR, run=spec.run, reason=str(error))


def fail(run: str, token: str, error: Mapping[str, Any], aws: Services) -> None:
    """Conclude a run that failed, in the same order."""
    reason = reason_of(error)
    if _ended(run, "Failed", reason, aws):
        answer_failure(token, reason, aws)


def _ended(run: str, ended: TerminalState, reason: str, aws: Services) -> bool:
    """Record the end in MLflow and in the table. False when somebody stopped the run meanwhile:
    then it ended as stopped, in MLflow too, and the callback has its answer.
    """
    end_in_mlflow(run, ended, reason, aws)
    changes: dict[str, Any] = {"reason": reason} if reason else {}
    if aws.runs.update(run, unless=("Stopping",), state=ended, **changes):
        return True
    state = aws.runs.get(run)
    if state is None or state.state not in ("Stopping", "Stopped"):
        return True
    end_in_mlflow(run, "Stopped", STOPPED, aws)
    return False


def handler(request: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point of the state machine's last step."""
    aws, run, token = services(), request["run"], request["token"]
    state = aws.runs.get(run)
    if state is not None and state.state in ("Stopping", "Stopped"):
        return {"run": run, "ok": False}  # whoever stopped it has answered
    if request["ok"]:
        succeed(run, token, request["outcome"], aws)
    else:
        fail(run, token, request["error"], aws)
    event(logger, "concluded", run=run, ok=request["ok"])
    return {"run": run, "ok": request["ok"]}
