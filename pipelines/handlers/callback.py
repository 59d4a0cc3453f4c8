"""The end of a run: MLflow is told, and the pipeline's callback answered."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from edge.logs import event
from fl_runtime.run.errors import CAUSE_LIMIT
from fl_runtime.run.keys import run_id, spec_key
from fl_runtime.run.mlflow_runs import MLFLOW_STATUS, end_run, open_run
from fl_runtime.run.spec import decode_spec
from fl_runtime.run.state import TerminalState
from pipelines.handlers.aws_clients import Services

logger = logging.getLogger(__name__)

STOPPED = "The pipeline was stopped."
"""The reason of a run that somebody stopped."""
_ANSWERED = ("ValidationException", "ResourceNotFound")
"""SageMaker's error codes for a callback that has been answered."""


def answer_success(token: str, outputs: list[dict[str, str]], aws: Services) -> None:
    """Answer the callback with outputs (idempotent)."""
    _answer(
        token,
        lambda: aws.sagemaker.send_pipeline_execution_step_success(
            CallbackToken=token, OutputParameters=outputs
        ),
        aws,
    )


def answer_failure(token: str, reason: str, aws: Services) -> None:
    """Answer the callback with a failure (idempotent)."""
    _answer(
        token,
        lambda: aws.sagemaker.send_pipeline_execution_step_failure(
            CallbackToken=token, FailureReason=reason[:CAUSE_LIMIT]
        ),
        aws,
    )


def end_in_mlflow(run: str, ended: TerminalState, reason: str, aws: Services) -> None:
    """Record in MLflow how the run ended, also when it failed before its server opened it there.

    Never raises: the pipeline gets its answer whether MLflow can be reached or not, and
    ``mledgeops reconcile`` tells MLflow later.
    """
    try:
        spec, state = decode_spec(aws.objects.get(spec_key(run))), aws.runs.get(run)
        client = aws.mlflow()
        mlflow_run_id = open_run(client, spec, {}, aws.artifact_root)
        end_run(client, mlflow_run_id, ended, reason, state.execution_arn if state else "")
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


def _answer(token: str, call: Callable[[], Any], aws: Services) -> None:
    """SageMaker refuses a second answer. That is fine: queues and state machines deliver twice."""
    try:
        call()
    except aws.sagemaker.exceptions.ClientError as error:
        if error.response["Error"]["Code"] not in _ANSWERED:
            raise
        event(logger, "answered-before", run=run_id(token), reason=str(error))
