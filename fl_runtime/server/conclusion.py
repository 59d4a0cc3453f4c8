"""The end of a run that has a model: stores its files, tells MLflow, and makes the outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from flwr.app import RecordDict

from edge.training.app_bundle import FlowerApp
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.keys import model_key
from fl_runtime.run.mlflow_runs import ENDED_EARLY_TAG, METRIC_TAG, VALUE_TAG
from fl_runtime.run.ports import ObjectStore
from fl_runtime.run.records import COMPARISON, Comparison
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.journal import read_round
from fl_runtime.server.model.artifact import FinalModel, final_model, model_metrics, model_tar
from fl_runtime.server.model.objective import Objective
from fl_runtime.server.rounds.array_records import to_arrays
from fl_runtime.server.rounds.round_loop import FinishedRounds
from fl_runtime.server.telemetry.tracking import RunTracker

ENDED_LIMIT = 256
"""Characters of the reason why a run ended early."""
EVALUATION = "evaluation.json"
NOT_COMPARED = Comparison(champion=None, round=0, devices=[], reason="The app runs its own rounds.")


class RunOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the server answers Step Functions; the pipeline callback's outputs are made of it."""

    run: str
    rounds: int
    participants: int
    metric: str
    value: float
    score: float
    """Of the robust mean: the pipeline's condition compares it."""
    reported_score: float
    """Of the metric as the app reports it."""
    model_digest: str
    model_data: str
    evaluation: str
    mlflow_run_id: str
    mlflow_model_id: str
    ended: str
    """Why the run ended before its last round; ``-`` when it did not."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A run whose rounds are over."""

    spec: RunSpec
    app: FlowerApp
    objective: Objective
    rounds: FinishedRounds
    ended_early: str
    """Why, or empty."""
    comparison: Comparison | None
    state: RecordDict
    """The ServerApp's ``context.state``."""

    @property
    def final_round(self) -> int:
        """The round whose model is the run's."""
        return self.rounds.final_round


def conclude(
    finished: Finished,
    objects: ObjectStore,
    tracker: RunTracker,
    *,
    uri: Callable[[str], str],
    is_stopping: Callable[[], bool],
) -> RunOutcome:
    """Store the model's files and log them to MLflow; ``uri`` gives an object's address by key.

    Raises:
        RunFailed: the metric is missing, MLflow stays away, or the run was stopped meanwhile.
    """
    spec = finished.spec
    evaluation = _final_evaluation(finished)
    number = _evaluated_round(finished)
    robust = read_round(objects, spec.run, number).robust if number else {}
    decisive = finished.objective.value_of({**evaluation, **robust})
    value = finished.objective.value_if_reported(evaluation) or decisive
    arrays = to_arrays(finished.rounds.result.arrays)
    model = final_model(arrays, value.metric, value.goal, value.value)
    files = _files(finished, model, evaluation)
    for name, data in files.items():
        objects.put(model_key(spec.run, name), data)
    for name, table in tables_of(finished.state).items():
        objects.put(model_key(spec.run, f"tables/{name}.json"), msgspec.json.encode(table))
        tracker.log_table(name, table)
    for name in (EVALUATION, COMPARISON):
        tracker.log_bytes(name, files[name])
    model_id = tracker.log_model(finished.app, model)
    tracker.set_tag(METRIC_TAG, model.metric)
    tracker.set_tag(VALUE_TAG, repr(model.value))
    ended = finished.ended_early[:ENDED_LIMIT]
    if ended:
        tracker.set_tag(ENDED_EARLY_TAG, ended)
    # The pipeline's next step registers the model from MLflow: all of it must be there.
    tracker.flush()
    if is_stopping():
        # Logging a model needs MLflow's own start_run, which has just set the run to FINISHED.
        tracker.end("Stopped", "The pipeline was stopped.")
        raise RunFailed("stopped", "The run was stopped while its model was being logged.")
    return RunOutcome(
        run=spec.run,
        rounds=finished.final_round,
        participants=read_round(objects, spec.run, finished.final_round).participants,
        metric=model.metric,
        value=model.value,
        score=decisive.score,
        reported_score=model.score,
        model_digest=model.digest,
        model_data=uri(model_key(spec.run, "model.tar.gz")),
        evaluation=uri(model_key(spec.run, EVALUATION)),
        mlflow_run_id=tracker.run_id,
        mlflow_model_id=model_id.result(),
        ended=ended or "-",
    )


def tables_of(state: RecordDict) -> dict[str, dict[str, list[Any]]]:
    """Tables that the app left in ``context.state``: records of lists that have one length."""
    tables = {}
    for name, record in {**state.config_records, **state.metric_records}.items():
        columns = {key: list(value) for key, value in record.items() if isinstance(value, list)}
        lengths = {len(column) for column in columns.values()}
        if columns and len(columns) == len(record) and len(lengths) == 1:
            tables[name] = columns
    return tables


def _final_evaluation(finished: Finished) -> dict[str, Any]:
    """The metrics of the final round, or of the last evaluated one before it."""
    result = finished.rounds.result
    history = result.evaluate_metrics_clientapp or result.evaluate_metrics_serverapp
    return dict(history[_last(history, finished.final_round)]) if history else {}


def _evaluated_round(finished: Finished) -> int:
    """The round whose devices' evaluation counts; 0: none."""
    history = finished.rounds.result.evaluate_metrics_clientapp
    return _last(history, finished.final_round) if history else 0


def _last(history: Mapping[int, Any], final_round: int) -> int:
    # A strategy may evaluate less often than each round.
    until = [number for number in history if number <= final_round]
    return max(until, default=max(history))


def _files(finished: Finished, model: FinalModel, evaluation: dict[str, Any]) -> dict[str, bytes]:
    comparison = finished.comparison or NOT_COMPARED
    return {
        "model.safetensors": model.weights,
        "model.tar.gz": model_tar(model, finished.spec, finished.app.bundle()),
        EVALUATION: model_metrics(evaluation, model.metric),
        COMPARISON: msgspec.json.encode(msgspec.structs.replace(comparison, goal=model.goal)),
    }
