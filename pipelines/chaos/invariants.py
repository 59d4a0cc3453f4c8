"""What must hold after a run under any faults. Each violation is one sentence."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from edge.protocol.records import decode_records
from fl_runtime.run.aws import S3Objects
from fl_runtime.run.keys import model_key
from fl_runtime.run.ports import ObjectStore
from fl_runtime.run.records import RoundRecord
from fl_runtime.server.rounds.quorum import TRANSIENT
from pipelines.chaos.app.steady.model import Weights, examples, initial, train
from pipelines.chaos.devices.behaviours import HARMLESS
from pipelines.chaos.stage import SERVER, Stage
from pipelines.chaos.world import ROUNDS
from pipelines.run.report import RunReport

TOLERANCE = 1e-5
"""Largest difference of a weight of about 1 in float32, after three rounds."""
SERVER_SECONDS = 15.0
"""A server looks every 5 s whether its run goes on, and then has 5 s to end."""


@dataclass(frozen=True)
class Attack:
    """What hostile devices did during a run."""

    behaviour: str
    devices: tuple[int, ...]
    """Their indexes. All others are honest."""


def violations(stage: Stage, report: RunReport, ends: str, attack: Attack) -> Iterator[str]:
    """All violations of a run that has ended.

    Args:
        stage: The run and its world.
        report: What the runner reports of it.
        ends: How it had to end.
        attack: What the hostile devices did.

    """
    if report.status != ends:
        yield f"the run ended as {report.status} ({report.reason}), not {ends}"
        return
    clients, bucket = stage.world.clients, stage.world.cloud.deployment.bucket
    objects, state = S3Objects(clients.s3, bucket), stage.state()
    stopped_late = ends == "Stopped" and state is not None and state.state == "Succeeded"
    if stopped_late and len(report.rounds) == ROUNDS:
        # The run had succeeded; the stop reached the pipeline before it registered the model.
        ends = "Succeeded"
        yield from check_model(objects, stage.run, report.rounds)
    elif state is None or state.state != ends:
        yield f"the runs table says {state.state if state else 'nothing'}"
    yield from _check_servers(stage)
    yield from check_rounds(report.rounds, ends)
    yield from check_hostile(report.rounds, attack)
    if len(attack.devices) > 1:
        yield from check_honest(report.rounds, attack)
    yield from stage.world.devices.trained_again()
    yield from check_mlflow(clients.mlflow, stage.run, ends, len(report.rounds))
    if report.status == "Succeeded":
        yield from check_model(objects, stage.run, report.rounds)
        yield from check_registered(clients.sagemaker, clients.mlflow, report)


def check_rounds(rounds: list[RoundRecord], ends: str) -> Iterator[str]:
    """Rounds are numbered from 1 without gaps, and count a device once in each phase."""
    numbers = [record.round for record in rounds]
    complete = len(numbers) == ROUNDS or ends != "Succeeded"
    if numbers != list(range(1, len(numbers) + 1)) or not complete:
        yield f"the rounds are {numbers}"
    for record in rounds:
        counted = [
            (row.phase.split("-")[1], row.device) for row in record.devices if row.status == "ok"
        ]
        if len(counted) != len(set(counted)):
            yield f"a device counted twice in round {record.round}"


def check_hostile(rounds: list[RoundRecord], attack: Attack) -> Iterator[str]:
    """No update of a harmful device counts, and no lie about a loss decides."""
    for record in rounds:
        if record.robust.get("loss", 0.0) < 0:
            yield f"a lie decides in round {record.round}: loss {record.robust['loss']:g}"
    if attack.behaviour in HARMLESS:
        return
    for record in rounds:
        for index in set(attack.devices) & set(_trained_by(record)):
            yield f"hostile device {index} counted in round {record.round} ({attack.behaviour})"


def check_honest(rounds: list[RoundRecord], attack: Attack) -> Iterator[str]:
    """No honest device is refused for what it did not do."""
    for record in rounds:
        for row in record.devices:
            index = _index(row.device)
            judged = row.status == "error" and row.code not in TRANSIENT
            if judged and index not in attack.devices:
                yield f"device {index} is honest, and was refused in {row.phase}: {row.code}"


def check_model(objects: ObjectStore, run: str, rounds: list[RoundRecord]) -> Iterator[str]:
    """The final model is what the counted updates give, computed again."""
    weights = initial()["w"]
    for record in rounds:
        weights = federated_mean(weights, _trained_by(record))
    blob = objects.get(model_key(run, "model.safetensors"))
    found = next(iter(decode_records(blob).arrays.values()))["w"]
    distance = float(np.abs(found - weights).max())
    if not distance <= TOLERANCE:  # also for NaN
        yield f"the final model is {distance:.3g} away from what the updates that counted give"


def check_mlflow(mlflow: Any, run: str, ends: str, rounds: int) -> Iterator[str]:
    """MLflow has one run with each finished round once, and the run's end."""
    experiments = [experiment.experiment_id for experiment in mlflow.search_experiments()]
    runs = mlflow.search_runs(experiments, f"tags.`mledgeops.run_id` = '{run}'")
    if len(runs) != 1:
        yield f"MLflow has {len(runs)} runs of it"
        return
    history = mlflow.get_metric_history(runs[0].info.run_id, "participants")
    steps = sorted(point.step for point in history)
    if ends == "Succeeded" and steps != list(range(1, rounds + 1)):
        yield f"MLflow has the rounds {steps}"
    if len(steps) != len(set(steps)):
        yield f"MLflow has a round twice: {steps}"
    wanted = {"Succeeded": "FINISHED", "Stopped": "KILLED"}[ends]
    if runs[0].info.status != wanted:
        yield f"MLflow says {runs[0].info.status}, not {wanted}"


def check_registered(sagemaker: Any, mlflow: Any, report: RunReport) -> Iterator[str]:
    """One model package and one version, each naming the other's run, and both undecided."""
    if not report.model_package_arn or not report.model_version:
        yield "no model was registered"
        return
    versions = mlflow.search_model_versions(f"run_id = '{report.mlflow_run_id}'")
    if len(versions) != 1:
        yield f"MLflow has {len(versions)} versions of its model"
    package = sagemaker.describe_model_package(ModelPackageName=report.model_package_arn)
    if package["ModelApprovalStatus"] != "PendingManualApproval":
        yield f"the package is {package['ModelApprovalStatus']}"
    if package["CustomerMetadataProperties"]["mledgeops.run_id"] != report.run_id:
        yield "the package names another run"


def federated_mean(weights: Weights, partitions: list[int]) -> Weights:
    """One round: the mean of the partitions' updates, weighted by their examples."""
    total = sum(examples(p) * train(weights, p).astype(np.float64) for p in partitions)
    return np.asarray(total / sum(examples(p) for p in partitions), np.float32)


def rounds_text(rounds: list[RoundRecord]) -> str:
    """Participants and failures of each round, as JSON for a failure's report."""
    return msgspec.json.encode([[r.round, r.participants, r.failures] for r in rounds]).decode()


def _check_servers(stage: Stage) -> Iterator[str]:
    deadline = time.monotonic() + stage.patience(SERVER_SECONDS)
    while left := stage.world.tasks(SERVER, stage.run):
        if time.monotonic() > deadline:
            yield f"a server of the run is left: {left[0].pid}"
            return
        time.sleep(0.2)


def _trained_by(record: RoundRecord) -> list[int]:
    """Partitions whose training counted in a round."""
    return [
        _index(row.device) for row in record.devices if row.kind == "train" and row.status == "ok"
    ]


def _index(device: str) -> int:
    return int(device.rsplit("-", 1)[1])
