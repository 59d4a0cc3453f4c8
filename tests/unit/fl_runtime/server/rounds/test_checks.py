"""What replies are held against follows the strategy that aggregates them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fakes.runs import DEVICES, GOOD, run_rounds, training_device
from flwr.app import Array, ArrayRecord, MetricRecord
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    FedMedian,
)

from edge.protocol.messages import Command
from edge.protocol.records import Records
from fl_runtime.run.errors import RunFailed
from fl_runtime.server.aggregation.by_the_app import aggregated_by_the_app
from fl_runtime.server.rounds.strategies import aggregates_itself, averages_own_metrics, build


class Own(FedAvg):
    """Averages by itself the first array of whatever comes."""

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        found = [reply.content for reply in replies if reply.has_content()]
        arrays = [next(iter(content["arrays"].values())).numpy() for content in found]
        mean = np.mean(np.stack(arrays), axis=0, dtype=np.float32)
        return ArrayRecord({"w": Array(mean), "n": Array(np.array(3))}), MetricRecord(
            {"all": len(found)}
        )


def partial_layers(command: Command, content: Records) -> Records:
    """Replies with one of the model's layers, and a second record."""
    answer = training_device("d0")(command, content)
    if command.kind == "train":
        answer.arrays["arrays"] = {"w": answer.arrays["arrays"]["w"]}
        answer.arrays["control"] = {"c": np.ones(5, np.float32)}
    return answer


def nan_loss(command: Command, content: Records) -> Records:
    answer = training_device("d1")(command, content)
    if command.kind == "train":
        answer.metrics["metrics"]["train_loss"] = float("nan")
    return answer


def odd(command: Command, content: Records) -> Records:
    """One layer has another shape than the others' have."""
    answer = partial_layers(command, content)
    if command.kind == "train":
        answer.arrays["arrays"] = {"w": np.ones(7, np.float32)}
    return answer


def test_whose_aggregation_it_is() -> None:
    private = DifferentialPrivacyServerSideFixedClipping
    assert not aggregates_itself(FedAvg(), "train")
    assert not aggregates_itself(FedMedian(), "train")
    assert not aggregates_itself(type("Named", (FedAvg,), {})(), "train")
    assert not aggregates_itself(private(FedAvg(), 1.0, 1.0, 5), "train")
    assert aggregates_itself(Own(), "train")
    assert not aggregates_itself(Own(), "evaluate")
    assert aggregates_itself(private(Own(), 1.0, 1.0, 5), "train")
    assert averages_own_metrics(FedAvg(train_metrics_aggr_fn=lambda contents, key: None))
    assert not averages_own_metrics(FedAvg())


@pytest.mark.parametrize(
    ("strategy", "checks", "works"),
    [
        (FedAvg, "", False),
        (Own, "", True),
        (Own, "strict", False),
        (FedAvg, "free", False),  # Flower itself takes one array record only
    ],
)
def test_replies_of_another_shape_are_for_strategies_that_take_them(
    strategy: type, checks: str, works: bool
) -> None:
    devices = dict.fromkeys(DEVICES, partial_layers)
    if works:
        _, records = run_rounds(strategy(), devices, num_rounds=2, checks=checks)
        assert [record.train["all"] for record in records] == [6, 6]
        assert all(record.participants == 6 for record in records)
        return
    with pytest.raises(Exception, match=r"2 array records|Expected exactly one ArrayRecord"):
        run_rounds(strategy(), devices, num_rounds=1, checks=checks)


def test_by_the_switch_stock_averaging_takes_what_flowers_takes() -> None:
    """Every device sends the same part of the model: Flower averages it."""

    def part(command: Command, content: Records) -> Records:
        answer = partial_layers(command, content)
        answer.arrays.pop("control", None)
        return answer

    devices = dict.fromkeys(DEVICES, part)
    result, _ = run_rounds(FedAvg(), devices, num_rounds=1, checks="free")
    assert list(result.arrays) == ["w"]


def test_a_reply_that_the_apps_code_cannot_take_is_left_out() -> None:
    devices = {**dict.fromkeys(DEVICES, partial_layers), "d5": odd}
    _, records = run_rounds(Own(), devices, num_rounds=1)
    assert records[0].train == {"all": 5}
    assert (records[0].participants, records[0].failures) == (5, {"arrays": 1})


def test_what_the_app_raises_over_replies_that_are_all_alike_is_its_own_failure() -> None:
    def broken(replies: Any) -> Any:
        raise ZeroDivisionError("empty")

    with pytest.raises(ZeroDivisionError):
        aggregated_by_the_app(broken, [], type("Phases", (), {"stats": []})())


@pytest.mark.parametrize("own", [True, False])
def test_a_training_loss_of_nan_is_the_apps_to_average(own: bool) -> None:
    def known(contents: Any, weighted_by: str) -> MetricRecord:
        losses = [content["metrics"]["train_loss"] for content in contents]
        return MetricRecord({"known": sum(loss == loss for loss in losses)})

    strategy = FedAvg(train_metrics_aggr_fn=known) if own else FedAvg()
    _, records = run_rounds(strategy, {**GOOD, "d1": nan_loss}, num_rounds=1)
    assert records[0].participants == (6 if own else 5)
    assert records[0].failures == ({} if own else {"not-finite": 1})
    assert not own or records[0].train == {"known": 5}


def test_layers_in_another_order_are_put_into_the_models() -> None:
    def reversed_layers(command: Command, content: Records) -> Records:
        answer = training_device("d2")(command, content)
        if command.kind == "train":
            answer.arrays["arrays"] = dict(reversed(answer.arrays["arrays"].items()))
        return answer

    expected, _ = run_rounds(FedAvg(), GOOD)
    result, records = run_rounds(FedAvg(), {**GOOD, "d2": reversed_layers})
    assert records[0].failures == {}
    assert list(result.arrays) == list(expected.arrays) == ["w", "n"]
    np.testing.assert_array_equal(result.arrays["w"].numpy(), expected.arrays["w"].numpy())


def test_more_replies_than_are_asked_for_are_refused_before_a_round() -> None:
    asked: list[str] = []

    def device(command: Command, content: Records) -> Records:
        asked.append(command.kind)
        return training_device("d0")(command, content)

    strategy = build("Krum", {"num_malicious_nodes": 1, "fraction_train": 0.5}, 6)
    with pytest.raises(RunFailed, match=r"needs 5 valid updates .Krum.*asks only 3 devices"):
        run_rounds(strategy, dict.fromkeys(DEVICES, device))
    assert asked == []
