"""Invariants on runs made by hand: right ones pass, and each wrong one is named."""

from __future__ import annotations

import types
from typing import Any

import msgspec
import numpy as np
import pytest

from edge.protocol.records import Records, encode_records
from fl_runtime.run.records import DeviceRow, RoundBytes, RoundRecord, RoundSeconds
from pipelines.chaos.app.steady.model import initial
from pipelines.chaos.invariants import (
    Attack,
    check_honest,
    check_hostile,
    check_mlflow,
    check_model,
    check_registered,
    check_rounds,
    federated_mean,
    rounds_text,
)
from pipelines.chaos.suite import SKIPPED, Verdict, survival_by_kind
from pipelines.chaos.world import DEVICES, HOSTILE, ROUNDS, SYBILS
from pipelines.run.report import RunReport


def row(partition: int, number: int, status: str = "ok", kind: str = "train") -> DeviceRow:
    return DeviceRow(
        round=number,
        phase=f"{number:05d}-{kind}-0001-00000000",
        kind=kind,
        device=f"chaos-{partition:04d}",
        status=status,
        code="" if status == "ok" else "bad-update",
        reason="",
        digest="",
        seconds_fetch=0.0,
        seconds_work=0.0,
        seconds_upload=0.0,
        bytes_up=1,
        bytes_down=1,
        metrics={},
    )


def record(number: int, partitions: tuple[int, ...] = (0, 1, 2)) -> RoundRecord:
    return RoundRecord(
        round=number,
        train={},
        evaluate={},
        server={},
        participants=len(partitions),
        failures={},
        seconds=RoundSeconds(),
        bytes=RoundBytes(0, 0),
        devices=[row(partition, number) for partition in partitions],
    )


RUN = [record(1), record(2, (0, 2)), record(3, (1, 3))]


class Objects:
    """A bucket with the final model."""

    def __init__(self, weights: Any) -> None:
        self.blob = encode_records(Records(arrays={"arrays": {"w": weights}}))

    def get(self, _: str) -> bytes:
        return self.blob


def final_weights() -> Any:
    weights = initial()["w"]
    for partitions in ([0, 1, 2], [0, 2], [1, 3]):
        weights = federated_mean(weights, partitions)
    return weights


def test_a_right_run_violates_nothing() -> None:
    assert list(check_rounds(RUN, "Succeeded")) == []
    assert list(check_hostile(RUN, Attack("nan", (HOSTILE,)))) == []
    assert list(check_model(Objects(final_weights()), "run-1", RUN)) == []


def test_missing_repeated_and_too_few_rounds_are_named() -> None:
    assert list(check_rounds([RUN[0], RUN[2]], "Stopped")) == ["the rounds are [1, 3]"]
    assert list(check_rounds(RUN[:2], "Succeeded")) == ["the rounds are [1, 2]"]
    assert list(check_rounds(RUN[:2], "Stopped")) == []
    twice = record(1, (0, 0))
    assert list(check_rounds([twice], "Stopped")) == ["a device counted twice in round 1"]


def test_a_hostile_update_that_counted_is_named_unless_it_was_harmless() -> None:
    poisoned = [record(1, (0, HOSTILE))]
    assert list(check_hostile(poisoned, Attack("nan", (HOSTILE,)))) == [
        "hostile device 4 counted in round 1 (nan)"
    ]
    assert list(check_hostile(poisoned, Attack("flood", (HOSTILE,)))) == []
    sybils = [record(1, (0, *SYBILS))]
    assert len(list(check_hostile(sybils, Attack("huge", SYBILS)))) == 3
    assert HOSTILE == DEVICES - 1


def test_an_honest_device_that_was_refused_for_what_it_did_not_do_is_named() -> None:
    refused = record(1, (0,))
    refused.devices.append(row(1, 1, status="error"))
    refused.devices.append(row(HOSTILE, 1, status="error"))
    late = msgspec.structs.replace(row(2, 1, status="error"), code="no-reply")
    refused.devices.append(late)
    assert list(check_honest([refused], Attack("huge", SYBILS))) == [
        "device 1 is honest, and was refused in 00001-train-0001-00000000: bad-update"
    ]


@pytest.mark.parametrize("error", [0.01, float("nan")])
def test_a_model_that_the_updates_do_not_give_is_named(error: float) -> None:
    wrong = final_weights()
    wrong[7] += error
    assert "away from" in next(check_model(Objects(wrong), "run-1", RUN))


def test_the_mean_is_weighted_by_examples() -> None:
    weights = initial()["w"]
    alone = federated_mean(weights, [1])
    assert np.allclose(federated_mean(weights, [1, 1]), alone)
    assert not np.allclose(federated_mean(weights, [1, 2]), alone)


class Mlflow:
    """An MLflow client with one run."""

    def __init__(self, steps: list[int], status: str = "FINISHED", runs: int = 1) -> None:
        info = types.SimpleNamespace(run_id="m", status=status)
        self.steps, self.runs = steps, [types.SimpleNamespace(info=info)] * runs

    def search_experiments(self) -> list:
        return [types.SimpleNamespace(experiment_id="1")]

    def search_runs(self, *_: Any) -> list:
        return self.runs

    def get_metric_history(self, *_: Any) -> list:
        return [types.SimpleNamespace(step=step) for step in self.steps]

    def search_model_versions(self, _: str) -> list:
        return ["version"] * len(self.runs)


@pytest.mark.parametrize(
    ("mlflow", "ends", "text"),
    [
        (Mlflow([1, 2, 3]), "Succeeded", ""),
        (Mlflow([1, 2], "KILLED"), "Stopped", ""),
        (Mlflow([1, 3]), "Succeeded", "has the rounds [1, 3]"),
        (Mlflow([1, 2, 2], "KILLED"), "Stopped", "a round twice"),
        (Mlflow([1, 2, 3], "RUNNING"), "Succeeded", "says RUNNING, not FINISHED"),
        (Mlflow([], runs=2), "Succeeded", "has 2 runs"),
    ],
)
def test_mlflow_has_each_round_once_and_the_end(mlflow: Mlflow, ends: str, text: str) -> None:
    found = list(check_mlflow(mlflow, "run-1", ends, ROUNDS))
    assert bool(found) == bool(text)
    assert all(text in item for item in found[:1])


class Packages:
    def __init__(self, run: str = "run-1", approval: str = "PendingManualApproval") -> None:
        self.described = {
            "ModelApprovalStatus": approval,
            "CustomerMetadataProperties": {"mledgeops.run_id": run},
        }

    def describe_model_package(self, ModelPackageName: str) -> dict:
        assert ModelPackageName
        return self.described


def test_one_package_and_one_version_name_the_run() -> None:
    report = RunReport(run_id="run-1", model_package_arn="arn", model_version="steady/1")
    assert list(check_registered(Packages(), Mlflow([]), report)) == []
    assert list(check_registered(Packages(), Mlflow([]), RunReport())) == [
        "no model was registered"
    ]
    wrong = list(check_registered(Packages("run-2", "Approved"), Mlflow([], runs=2), report))
    assert len(wrong) == 3


def test_verdicts_are_counted_by_kind() -> None:
    def verdict(faults: list[str], violations: list[str], status: str = "Failed") -> Verdict:
        return Verdict(
            seed=1, faults=faults, status=status, seconds=1.0, told=[], violations=violations
        )

    skipped = verdict(["c"], [], SKIPPED)
    counts = survival_by_kind([verdict(["b", "a"], []), verdict(["a"], ["lost"]), skipped])
    assert counts == {"a": {"tried": 2, "survived": 1}, "b": {"tried": 1, "survived": 1}}
    assert rounds_text(RUN).startswith("[[1,3,{}]")


def test_a_lie_that_decides_is_named() -> None:
    lied = [msgspec.structs.replace(RUN[0], robust={"loss": -1e9})]
    assert list(check_hostile(lied, Attack("lying-evaluation", (HOSTILE,)))) == [
        "a lie decides in round 1: loss -1e+09"
    ]
