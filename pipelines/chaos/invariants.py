"""What must hold after a run, whatever happened to it. Each violation is one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from edge.protocol.records import decode_records
from fl_runtime.run.keys import model_key
from fl_runtime.run.records import RoundRecord
from pipelines.chaos.app.steady.model import Weights, examples, initial, train
from pipelines.chaos.faults import SERVER, Stage
from pipelines.chaos.hostile import HARMLESS
from pipelines.chaos.world import HOSTILE, ROUNDS
from pipelines.run.report import RunReport

TOLERANCE = 1e-5
"""Of a weight around 1 in float32, over three rounds."""


def violations(stage: Stage, report: RunReport, ends: str, behaviour: str) -> Iterator[str]:
    """All that is wrong with a run that has ended."""
    if report.status != ends:
        yield f"the run ended as {report.status} ({report.reason}), not {ends}"
        return
    state = stage.state()
    if (
        state is not None
        and ends == "Stopped"
        and state.state == "Succeeded"
        and len(report.rounds) == ROUNDS
    ):
        # the run had ended; what was stopped is the pipeline, before its registration
        ends = "Succeeded"
        yield from _model(stage, report.rounds)
    elif state is None or state.state != ends:
        yield f"the runs table says {state.state if state else 'nothing'}"
    yield from _tasks(stage)
    yield from _rounds(report, ends)
    yield from _hostile(report.rounds, behaviour)
    yield from _mlflow(stage.run, ends, len(report.rounds))
    if report.status == "Succeeded":
        yield from _model(stage, report.rounds)
        yield from _registered(report)


def _tasks(stage: Stage) -> Iterator[str]:
    import time

    # a server looks every 5 s whether it is still wanted, and then has 5 s to end
    deadline = time.monotonic() + 15
    while left := stage.world.tasks(SERVER, stage.run):
        if time.monotonic() > deadline:
            yield f"a server of the run is left: {left[0].pid}"
            return
        time.sleep(0.2)


def _rounds(report: RunReport, ends: str) -> Iterator[str]:
    numbers = [record.round for record in report.rounds]
    if numbers != list(range(1, len(numbers) + 1)) or (
        ends == "Succeeded" and len(numbers) != ROUNDS
    ):
        yield f"the rounds are {numbers}"
    for record in report.rounds:
        counted = [
            (row.phase.split("-")[1], row.device) for row in record.devices if row.status == "ok"
        ]
        if len(counted) != len(set(counted)):
            yield f"a device counted twice in round {record.round}"


def _hostile(rounds: list[RoundRecord], behaviour: str) -> Iterator[str]:
    if behaviour in HARMLESS:
        return
    for record in rounds:
        for row in record.devices:
            if row.kind == "train" and row.status == "ok" and _partition(row.device) == HOSTILE:
                yield f"the hostile device's update counted in round {record.round} ({behaviour})"


def _model(stage: Stage, rounds: list[RoundRecord]) -> Iterator[str]:
    """The final model, computed once more from who took part."""
    from fl_runtime.run.aws import S3Objects, client

    weights = initial()["w"]
    for record in rounds:
        partitions = [
            _partition(row.device)
            for row in record.devices
            if row.kind == "train" and row.status == "ok"
        ]
        weights = _mean(weights, partitions)
    objects = S3Objects(client("s3"), stage.world.cloud.deployment.bucket)
    found = next(
        iter(decode_records(objects.get(model_key(stage.run, "model.safetensors"))).arrays.values())
    )["w"]
    distance = float(np.abs(found - weights).max())
    if not distance <= TOLERANCE:
        yield f"the final model is {distance:.3g} away from what the updates that counted give"


def _mean(weights: Weights, partitions: list[int]) -> Weights:
    total = sum(examples(p) * train(weights, p).astype(np.float64) for p in partitions)
    return np.asarray(total / sum(examples(p) for p in partitions), np.float32)


def _partition(device: str) -> int:
    return int(device.rsplit("-", 1)[1])


def _mlflow(run: str, ends: str, rounds: int) -> Iterator[str]:
    """Each finished round once, and the run's end."""
    from mlflow import MlflowClient

    store = MlflowClient()
    experiments = [experiment.experiment_id for experiment in store.search_experiments()]
    runs = store.search_runs(experiments, f"tags.`mledgeops.run_id` = '{run}'")
    if len(runs) != 1:
        yield f"MLflow has {len(runs)} runs of it"
        return
    steps = sorted(
        point.step for point in store.get_metric_history(runs[0].info.run_id, "participants")
    )
    if ends == "Succeeded" and steps != list(range(1, rounds + 1)):
        yield f"MLflow has the rounds {steps}"
    if len(steps) != len(set(steps)):
        yield f"MLflow has a round twice: {steps}"
    wanted = {"Succeeded": "FINISHED", "Stopped": "KILLED"}[ends]
    if runs[0].info.status != wanted:
        yield f"MLflow says {runs[0].info.status}, not {wanted}"


def _registered(report: RunReport) -> Iterator[str]:
    """One package and one version, each naming the other."""
    from mlflow import MlflowClient

    from fl_runtime.run.aws import client

    if not report.model_package_arn or not report.model_version:
        yield "no model was registered"
        return
    versions = MlflowClient().search_model_versions(f"run_id = '{report.mlflow_run_id}'")
    if len(versions) != 1:
        yield f"MLflow has {len(versions)} versions of its model"
    package: dict[str, Any] = client("sagemaker").describe_model_package(
        ModelPackageName=report.model_package_arn
    )
    if package["ModelApprovalStatus"] != "PendingManualApproval":
        yield f"the package is {package['ModelApprovalStatus']}"
    if package["CustomerMetadataProperties"]["mledgeops.run_id"] != report.run_id:
        yield "the package names another run"


def as_json(rounds: list[RoundRecord]) -> str:
    """For a failure's report."""
    return msgspec.json.encode([[r.round, r.participants, r.failures] for r in rounds]).decode()
