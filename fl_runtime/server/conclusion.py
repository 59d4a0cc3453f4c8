"""The end of a run: stores what came of it, tells MLflow, and makes the outcome.

A run ends with a model, or as an analysis: an app that sent no model, such as one that only asks
its devices for statistics, leaves tables and files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from flwr.app import RecordDict

from edge.training.app_bundle import FlowerApp
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.keys import app_key, model_key
from fl_runtime.run.mlflow_runs import ENDED_EARLY_TAG, METRIC_TAG, OUTCOME_TAG, VALUE_TAG
from fl_runtime.run.ports import ObjectStore
from fl_runtime.run.records import (
    COMPARISON,
    Comparison,
    decisive_metrics,
    plain,
    reported_metrics,
)
from fl_runtime.run.scoring import NO_CHAMPION, NOT_JUDGED
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.journal import read_round
from fl_runtime.server.model.artifact import FinalModel, final_model, model_metrics, model_tar
from fl_runtime.server.model.objective import Objective, ObjectiveValue
from fl_runtime.server.rounds.array_records import to_arrays
from fl_runtime.server.rounds.round_loop import FinishedRounds
from fl_runtime.server.telemetry.tracking import RunTracker

ENDED_LIMIT = 256
"""Characters of the reason why a run ended early."""
EVALUATION = "evaluation.json"
NOTHING = "-"
"""Stands for what an analysis does not have: the pipeline allows no empty output."""
NOT_COMPARED = Comparison(champion=None, round=0, devices=[], reason="The app runs its own rounds.")


_NOT_IN_A_NAME = re.compile(r"[^\w\- ]")
"""What a table's name, which becomes a file's, does not keep."""


class RunOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the server answers Step Functions; the pipeline callback's outputs are made of it."""

    run: str
    outcome: Literal["model", "analysis"] = "model"
    """The pipeline registers a model only."""
    rounds: int
    participants: int
    metric: str = NOT_JUDGED
    value: float = 0.0
    score: float = NO_CHAMPION
    """Of the robust mean: the pipeline's condition compares it."""
    reported_score: float = NO_CHAMPION
    """Of the metric as the app reports it."""
    model_digest: str = NOTHING
    model_data: str = NOTHING
    evaluation: str = NOTHING
    mlflow_run_id: str
    mlflow_model_id: str = NOTHING
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
    files: Mapping[str, bytes]
    """What the ServerApp wrote, by path."""


@dataclass(frozen=True, kw_only=True)
class _Judgement:
    """What a model is judged by. Without a value nothing judges it."""

    reported: Mapping[str, Any]
    """The metrics of the round that decides."""
    value: ObjectiveValue | None = None
    """As the app reports it."""
    decisive: ObjectiveValue | None = None
    """Robust."""


def conclude(
    finished: Finished,
    objects: ObjectStore,
    tracker: RunTracker,
    *,
    uri: Callable[[str], str],
    is_stopping: Callable[[], bool],
) -> RunOutcome:
    """Store what the app left and log it to MLflow; ``uri`` gives an object's address by key.

    Raises:
        RunFailed: the wanted metric is missing, MLflow stays away, or the run was stopped.
    """
    spec, number = finished.spec, finished.rounds.final_round
    _store_results(finished, objects, tracker)
    ended = finished.ended_early[:ENDED_LIMIT]
    if ended:
        tracker.set_tag(ENDED_EARLY_TAG, ended)
    outcome = RunOutcome(
        run=spec.run,
        rounds=number,
        participants=read_round(objects, spec.run, number).participants if number else 0,
        mlflow_run_id=tracker.run_id,
        ended=ended or NOTHING,
    )
    if finished.rounds.result.arrays:
        outcome = _with_model(outcome, finished, objects, tracker, uri)
    else:
        outcome = msgspec.structs.replace(outcome, outcome="analysis")
    tracker.set_tag(OUTCOME_TAG, outcome.outcome)
    # The pipeline's next step registers the model from MLflow: all of it must be there.
    tracker.flush()
    if is_stopping():
        # Logging a model needs MLflow's own start_run, which has just set the run to FINISHED.
        tracker.end("Stopped", "The pipeline was stopped.")
        raise RunFailed("stopped", "The run was stopped while its model was being logged.")
    return outcome


def tables_of(state: RecordDict) -> dict[str, dict[str, list[Any]]]:
    """Tables that the app left in ``context.state``: records of lists that have one length, and
    metric records of numbers, which are one row.
    """
    tables = {}
    for name, left in {**state.config_records, **state.metric_records}.items():
        record = plain(left)
        columns = {key: value for key, value in record.items() if isinstance(value, list)}
        if not columns and name in state.metric_records:
            columns = {key: [value] for key, value in record.items()}
        lengths = {len(column) for column in columns.values()}
        if columns and len(columns) == len(record) and len(lengths) == 1:
            tables[_NOT_IN_A_NAME.sub("_", name)[:200]] = columns
    return tables


def _store_results(finished: Finished, objects: ObjectStore, tracker: RunTracker) -> None:
    """What the app left beside its model: tables and files."""
    run = finished.spec.run
    for name, table in tables_of(finished.state).items():
        objects.put(model_key(run, f"tables/{name}.json"), msgspec.json.encode(table))
        tracker.log_table(name, table)
    for name, data in finished.files.items():
        objects.put(model_key(run, f"files/{name}"), data)
        tracker.log_bytes(f"files/{name}", data)


def _with_model(
    outcome: RunOutcome,
    finished: Finished,
    objects: ObjectStore,
    tracker: RunTracker,
    uri: Callable[[str], str],
) -> RunOutcome:
    """Store the model's files, log them, and complete the outcome."""
    run = finished.spec.run
    judged = _judgement(finished, objects)
    value, decisive = judged.value, judged.decisive
    model = final_model(
        to_arrays(finished.rounds.result.arrays),
        value.metric if value is not None else NOT_JUDGED,
        value.goal if value is not None else finished.objective.goal or "minimize",
        value.value if value is not None else 0.0,
    )
    # As it was stored: the ServerApp may have written into its folder since.
    bundle = objects.get(app_key(finished.spec.app))
    files = _files(finished, model, bundle, judged.reported)
    while files:  # each goes when it is stored: the archive is as large as the model
        name, data = files.popitem()
        objects.put(model_key(run, name), data)
        if name in (EVALUATION, COMPARISON):
            tracker.log_bytes(name, data)
        del data
    model_id = tracker.log_model(finished.app, model)
    if value is not None:
        tracker.set_tag(METRIC_TAG, model.metric)
        tracker.set_tag(VALUE_TAG, repr(model.value))
    return msgspec.structs.replace(
        outcome,
        metric=model.metric,
        value=model.value,
        score=decisive.score if decisive is not None else NO_CHAMPION,
        reported_score=model.score if value is not None else NO_CHAMPION,
        model_digest=model.digest,
        model_data=uri(model_key(run, "model.tar.gz")),
        evaluation=uri(model_key(run, EVALUATION)),
        mlflow_model_id=model_id.result(),
    )


def _judgement(finished: Finished, objects: ObjectStore) -> _Judgement:
    """By the final round, or by the last one before it that reported anything.

    A strategy may evaluate less often than each round.

    Raises:
        RunFailed: something was reported, and not the metric that the run or the app names.
    """
    wanted = finished.objective.metric
    anything: dict[str, Any] = {}
    for number in range(finished.rounds.final_round, 0, -1):
        record = read_round(objects, finished.spec.run, number)
        reported = reported_metrics(record, wanted)
        anything = anything or reported_metrics(record)
        if reported:
            decisive = finished.objective.value_of(decisive_metrics(record, wanted))
            value = finished.objective.value_if_reported(reported) or decisive
            return _Judgement(reported=reported, value=value, decisive=decisive)
    if anything:
        finished.objective.value_of(anything)  # raises: it names what is reported instead
    return _Judgement(reported={})


def _files(
    finished: Finished, model: FinalModel, bundle: bytes, evaluation: Mapping[str, Any]
) -> dict[str, bytes]:
    comparison = finished.comparison or NOT_COMPARED
    return {
        "model.safetensors": model.weights,
        "model.tar.gz": model_tar(model, finished.spec, bundle, finished.app),
        EVALUATION: model_metrics(evaluation, model.metric),
        COMPARISON: msgspec.json.encode(msgspec.structs.replace(comparison, goal=model.goal)),
    }
