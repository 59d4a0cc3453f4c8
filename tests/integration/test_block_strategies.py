"""Each robust strategy in blocks gives what Flower's own code gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    Bulyan,
    FedAvg,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    Krum,
    MultiKrum,
    Strategy,
)

from edge.training.flower_compat import set_identity
from fl_runtime.server.aggregation import block_strategies
from fl_runtime.server.aggregation.block_strategies import aggregate_train

STRATEGIES: list[tuple[type[Strategy], dict[str, Any]]] = [
    (FedMedian, {}),
    (FedTrimmedAvg, {"beta": 0.2}),
    (Krum, {"num_malicious_nodes": 1}),
    (MultiKrum, {"num_malicious_nodes": 1, "num_nodes_to_select": 3}),
    (Bulyan, {"num_malicious_nodes": 1}),
    (FedAvg, {}),
]


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_strategies, "SMALL_BYTES", -1)


def replies(count: int, bad: float | None = None) -> list[Message]:
    """Replies of so many devices, one of them far off, and an error."""
    set_identity(1, 1)
    generator = np.random.default_rng(count)
    made = []
    for number in range(count):
        arrays = {
            "w": generator.standard_normal((5, 4)).astype(np.float32) + (9.0 if number == 1 else 0),
            "b": generator.standard_normal(3),
        }
        if number == 2 and bad is not None:
            arrays["w"][0, 0] = bad
        content = {
            "model": ArrayRecord({key: Array(value) for key, value in arrays.items()}),
            "metrics": MetricRecord({"loss": float(number), "num-examples": 10 + number}),
        }
        asked = Message(RecordDict(), number + 10, "train")
        asked.metadata.__dict__["_message_id"] = f"m{number}"
        made.append(Message(RecordDict(content), reply_to=asked))
    failed = Message(RecordDict(), 99, "train")
    return [*made, Message(Error(code=0, reason="gone"), reply_to=failed)]


@pytest.mark.parametrize("count", [7, 8])
@pytest.mark.parametrize(("kind", "parameters"), STRATEGIES)
def test_the_result_is_flowers(kind: type[Strategy], parameters: dict, count: int) -> None:
    arrays, metrics = aggregate_train(kind(**parameters), 1, replies(count))
    expected, expected_metrics = kind(**parameters).aggregate_train(1, replies(count))
    assert dict(metrics) == pytest.approx(dict(expected_metrics))
    assert list(arrays) == list(expected)
    for key, array in arrays.items():
        # FedAvg's kind makes float64 of what it averages: the round loop restores the dtypes.
        np.testing.assert_allclose(array.numpy(), expected[key].numpy(), rtol=1e-5, atol=1e-6)
        assert array.shape == expected[key].shape


@pytest.mark.parametrize(("kind", "parameters"), STRATEGIES[:1] + STRATEGIES[4:5])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_left_to_flower(
    kind: type[Strategy], parameters: dict, bad: float
) -> None:
    with np.errstate(invalid="ignore"):
        arrays, _ = aggregate_train(kind(**parameters), 1, replies(7, bad))
        expected, _ = kind(**parameters).aggregate_train(1, replies(7, bad))
    np.testing.assert_array_equal(arrays["w"].numpy(), expected["w"].numpy())


def test_too_few_replies_and_rules_of_the_apps_own_are_left_to_flower() -> None:
    assert aggregate_train(Bulyan(num_malicious_nodes=2), 1, replies(7)) == (None, None)
    assert aggregate_train(FedMedian(), 1, replies(0)) == (None, None)
    chosen = []

    def rule(contents: list[RecordDict], malicious: int, count: int) -> list[RecordDict]:
        chosen.append(count)
        return contents[:count]

    arrays, _ = aggregate_train(Bulyan(num_malicious_nodes=1, selection_rule=rule), 1, replies(7))
    assert (chosen, set(arrays)) == ([5], {"w", "b"})


def test_small_updates_are_aggregated_to_the_last_bit_of_flowers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(block_strategies, "SMALL_BYTES", 7 * (20 * 4 + 3 * 8))
    seen = []
    monkeypatch.setattr(FedMedian, "aggregate_train", lambda *given: seen.append(given) or given)
    aggregate_train(FedMedian(), 1, replies(7))
    assert len(seen) == 1
    aggregate_train(FedMedian(), 1, replies(8))
    assert len(seen) == 1


@pytest.mark.parametrize("kind", [FedAvg, FedProx])
def test_a_mean_of_one_is_that_one(kind: type[Strategy]) -> None:
    arrays, metrics = aggregate_train(kind(), 1, replies(1))
    expected, expected_metrics = kind().aggregate_train(1, replies(1))
    assert metrics == expected_metrics
    for key, array in arrays.items():
        np.testing.assert_array_equal(array.numpy(), expected[key].numpy())


def test_a_subclass_aggregates_as_it_likes() -> None:
    class Mine(FedMedian):
        def aggregate_train(self, server_round, replies):
            return None, MetricRecord({"mine": 1})

    _, metrics = aggregate_train(Mine(), 1, replies(3))
    assert metrics == {"mine": 1}
