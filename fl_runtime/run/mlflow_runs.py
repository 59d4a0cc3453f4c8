"""The MLflow run of a federated run: find, open and end it.

Used by the server, by the Lambda functions that conclude a run, and by reconciliation. MLflow takes
a second to import, so it is imported when the client is made.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from typing import Any

from fl_runtime.run.spec import RunSpec
from fl_runtime.run.state import TerminalState

MLFLOW_STATUS: Mapping[TerminalState, str] = {
    "Succeeded": "FINISHED",
    "Failed": "FAILED",
    "Stopped": "KILLED",
}
"""MLflow's run status for each terminal state of a run."""

ARTIFACT_ROOT_VARIABLE = "MLEDGEOPS_ARTIFACT_ROOT"
"""Environment variable with the artifact location of new experiments; unset: MLflow's default."""

RUN_ID_TAG = "mledgeops.run_id"
STATUS_TAG = "mledgeops.status"
REASON_TAG = "mledgeops.reason"
NOT_BETTER = "NotBetter"
"""Value of :data:`STATUS_TAG` for a run whose model missed its minimum or its champion's score.
MLflow's own status of it is ``FAILED``.
"""
EXECUTION_TAG = "mledgeops.execution_arn"
PIPELINE_TAG = "mledgeops.pipeline_execution_arn"
DEVICES_TAG = "mledgeops.devices"
ENDED_EARLY_TAG = "mledgeops.ended_early"
OUTCOME_TAG = "mledgeops.outcome"
"""``model``, or ``analysis`` of a run without one."""
METRIC_TAG = "mledgeops.metric"
"""Name of the metric that the run's model is judged by."""
VALUE_TAG = "mledgeops.value"
"""That metric's value, as ``repr`` writes it."""
NAME_CHARACTERS = 250
"""Longest name of a metric or a parameter."""
VALUE_CHARACTERS = 6000
"""Longest value of a parameter."""
_NOT_IN_A_NAME = re.compile(r"[^\w.\- /:]")


def mlflow_client() -> Any:
    """An ``MlflowClient`` for ``MLFLOW_TRACKING_URI``, with MLflow's telemetry switched off."""
    # MLflow reads this when it is imported: https://mlflow.org/docs/latest/community/usage-tracking/
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    return MlflowClient()


def open_run(
    client: Any, spec: RunSpec, details: Mapping[str, str], artifact_root: str | None = None
) -> str:
    """MLflow's id of a federated run (idempotent): the run is created if it does not exist.

    ``details`` are further tags. ``artifact_root`` is where a new experiment keeps its artifacts.
    """
    found = find_run(client, spec.run, spec.experiment)
    if found is not None:
        return found
    experiment = client.get_experiment_by_name(spec.experiment)
    experiment_id = (
        experiment.experiment_id
        if experiment
        else client.create_experiment(spec.experiment, artifact_location=artifact_root)
    )
    tags = {**_tags(spec), **details}
    run_id: str = client.create_run(experiment_id, run_name=spec.run, tags=tags).info.run_id
    log_params(client, run_id, _parameters(spec))
    return run_id


def log_params(client: Any, run_id: str, params: Mapping[str, Any]) -> None:
    """Log the parameters that the run does not have yet: MLflow refuses another value."""
    known = client.get_run(run_id).data.params
    for key, value in params.items():
        name = allowed_name(key)
        if name not in known:
            client.log_param(run_id, name, str(value)[:VALUE_CHARACTERS])


def allowed_name(name: str) -> str:
    """A name that MLflow takes for a metric or a parameter: apps have ``acc@1`` or ``loss (%)``.

    https://mlflow.org/docs/latest/ml/tracking/
    """
    allowed = _NOT_IN_A_NAME.sub("_", name)[:NAME_CHARACTERS]
    # It also is a path, and must be one in its shortest form.
    return allowed if posixpath.normpath(allowed) == allowed else allowed.replace("/", "_")


def find_run(client: Any, run: str, experiment: str) -> str | None:
    """MLflow's id of a federated run, or None."""
    place = client.get_experiment_by_name(experiment)
    if place is None:
        return None
    found = client.search_runs(
        [place.experiment_id], f"tags.`{RUN_ID_TAG}` = '{run}'", max_results=1
    )
    return found[0].info.run_id if found else None


def end_run(
    client: Any, run_id: str, state: TerminalState, reason: str = "", execution_arn: str = ""
) -> None:
    """Set MLflow's terminal status, and tag the run with our state, reason and state machine."""
    if execution_arn:
        client.set_tag(run_id, EXECUTION_TAG, execution_arn)
    if reason:
        client.set_tag(run_id, REASON_TAG, reason)
    client.set_tag(run_id, STATUS_TAG, state)
    client.set_terminated(run_id, MLFLOW_STATUS[state])


def _tags(spec: RunSpec) -> dict[str, str]:
    return {
        RUN_ID_TAG: spec.run,
        "mledgeops.fleet": spec.fleet,
        "mledgeops.app": spec.app_name,
        "mledgeops.app_digest": spec.app,
        PIPELINE_TAG: spec.pipeline_execution_arn,
        "mlflow.source.name": spec.app_name,
    }


def _parameters(spec: RunSpec) -> dict[str, Any]:
    return {
        "num_rounds": spec.num_rounds,
        "devices_per_proxy": spec.devices_per_proxy,
        "min_devices": spec.min_devices,
        "seed": spec.seed,
        # The server adds the app's other settings, and the strategy's when it starts.
        **app_params(spec.run_config),
        **({"strategy": spec.strategy} if spec.strategy else {}),
        **{f"strategy.{key}": value for key, value in spec.strategy_params.items()},
    }


def app_params(config: Mapping[str, Any]) -> dict[str, Any]:
    """An app's settings by the names of their parameters in MLflow."""
    return {f"app.{key}": value for key, value in config.items()}
