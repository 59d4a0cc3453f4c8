"""Collects a candidate's evidence from what its run left in S3, and from the fleet's heartbeats."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from edge.protocol.errors import ProtocolError
from edge.protocol.text import parse_json
from edge.training.app_bundle import FlowerApp, unpack
from edge.typed import from_json
from fl_runtime.run.cohorts import Cohort
from fl_runtime.run.devices import DeviceStatus
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import app_key, cohorts_key, model_key, spec_key
from fl_runtime.run.ports import ObjectStore
from fl_runtime.run.records import COMPARISON, Comparison, RoundRecord, device_evaluations
from fl_runtime.run.scoring import score_of
from fl_runtime.run.spec import RunSpec, decode_spec
from registry.evidence.compare import compare
from registry.evidence.drift import drift_of, servings
from registry.evidence.history import RunHistory, read_rounds, train_rows
from registry.evidence.model import EXAMPLES, Coverage, Drift, Evidence, Lineage, as_number
from registry.model_version import (
    DIGEST_TAG,
    EXECUTION,
    MLFLOW_RUN,
    RUN_TAG,
    SCORE_TAG,
    Package,
    parse_number,
)
from registry.provenance import EVIDENCE

CARD = "card.html"
"""File name among those of the final model."""
_UPDATES_KEPT = 1000
Heartbeats = Callable[[str], Iterable[DeviceStatus]]
"""A fleet's devices by their last heartbeats."""


def collect(
    package: Package, model_version: str, objects: ObjectStore, heartbeats: Heartbeats
) -> Evidence:
    """Collect a version's evidence. Raises ObjectMissing when the run did not leave the objects
    that it is made from.
    """
    run = package.metadata[RUN_TAG]
    spec = decode_spec(objects.get(spec_key(run)))
    cohorts = from_json(objects.get(cohorts_key(run)), type=list[Cohort])
    comparison = from_json(objects.get(model_key(run, COMPARISON)), type=Comparison)
    metric = package.metric or spec.metric
    goal = comparison.goal_for(metric)
    app = read_app(objects, spec)
    score = parse_number(package.metadata[SCORE_TAG])
    history = RunHistory(spec, cohorts, comparison.round)
    for record in read_rounds(objects, spec):
        history.add(record)
    final = history.final
    if final is None:
        raise ObjectMissing(f"the run {run} left no round")
    if not comparison.devices:  # an app that runs its own rounds compares nothing
        comparison = msgspec.structs.replace(
            comparison, round=final.round, devices=device_evaluations(final, cohorts)
        )
    return Evidence(
        model_version=model_version,
        metric=metric,
        goal=goal,
        value=None if score is None else score_of(score, goal),
        registered_at=time.time(),
        fleet=spec.fleet,
        description=app.description,
        licence=app.licence,
        intended_use=str(app.settings.get("intended-use", "")),
        curves=history.curves,
        compared=compare(comparison, metric, goal),
        participation=history.participation(),
        coverage=_coverage(final, _champion_examples(objects, comparison)),
        drift=_drift(comparison, heartbeats(spec.fleet)),
        costs=history.costs(comparison),
        lineage=_lineage(package, spec, app, comparison, final),
    )


def read_evidence(objects: ObjectStore, run: str) -> Evidence | None:
    """The evidence of the version that a run made; None when it was registered without, or when
    something else lies in its place.
    """
    try:
        found: Evidence = parse_json(objects.get(model_key(run, EVIDENCE)), Evidence, "It")
    except (ObjectMissing, ProtocolError):
        return None
    return found


def read_app(objects: ObjectStore, spec: RunSpec) -> FlowerApp:
    """A run's app, from its bundle. Raises ObjectMissing, and AppError for another bundle."""
    with tempfile.TemporaryDirectory() as folder:
        return unpack(objects.get(app_key(spec.app)), Path(folder), spec.app)


def _drift(comparison: Comparison, devices: Iterable[DeviceStatus]) -> Drift:
    """The champion's drift: without a champion there is nothing that could drift."""
    if comparison.champion is None:
        return Drift()
    return drift_of(servings(devices, comparison.champion.model_version))


def _coverage(final: RoundRecord, champion_examples: float | None) -> Coverage:
    rows = [row for row in train_rows(final) if row.status == "ok"]
    counts = [as_number(row.metrics.get(EXAMPLES)) for row in rows]
    examples = [count for count in counts if count is not None] or [0.0]
    return Coverage(
        examples=sum(examples),
        least=min(examples),
        median=statistics.median(examples),
        most=max(examples),
        champion_examples=champion_examples,
    )


def _champion_examples(objects: ObjectStore, comparison: Comparison) -> float | None:
    if comparison.champion is None:
        return None
    run = comparison.champion.key.split("/")[1]  # runs/RUN/model/...
    evidence = read_evidence(objects, run)
    return evidence.coverage.examples if evidence is not None else None


def _lineage(
    package: Package, spec: RunSpec, app: FlowerApp, comparison: Comparison, final: RoundRecord
) -> Lineage:
    parameters = {f"app.{key}": value for key, value in {**app.config, **spec.run_config}.items()}
    parameters |= {f"strategy.{key}": value for key, value in spec.strategy_params.items()}
    updates = {row.device: row.digest for row in train_rows(final) if row.status == "ok"}
    return Lineage(
        pipeline_execution_arn=spec.pipeline_execution_arn,
        execution_arn=package.metadata.get(EXECUTION, ""),
        run=spec.run,
        mlflow_run_id=package.metadata[MLFLOW_RUN],
        model_package_arn=package.arn,
        app=spec.app_name,
        app_version=app.version,
        app_digest=spec.app,
        model_digest=package.metadata[DIGEST_TAG],
        model_data=package.model_data,
        strategy=spec.strategy or comparison.strategy or "the app's",
        seed=spec.seed,
        rounds=final.round,
        parameters={key: str(value) for key, value in parameters.items()},
        updates=dict(sorted(updates.items())[:_UPDATES_KEPT]),
        resumed_from=spec.resume_from,
    )
