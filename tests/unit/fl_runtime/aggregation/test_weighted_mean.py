"""The weighted mean is FedAvg's, in any order and grouping."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.phases import update
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords, aggregate_metricrecords
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.protocol.errors import ProtocolError
from edge.protocol.records import Records, encode_records
from fl_runtime.aggregation.weighted_mean import WeightedMean, regroup, restore_dtypes
from fl_runtime.run.messages import array_specs

FLOATS = st.floats(-1e3, 1e3, width=32)


@st.composite
def updates(draw: st.DrawFn) -> list[tuple[Records, float]]:
    shape = draw(st.sampled_from([(), (3,), (2, 2)]))
    size = int(np.prod(shape))
    made = []
    for _ in range(draw(st.integers(1, 6))):
        values = draw(st.lists(FLOATS, min_size=size, max_size=size))
        weight = draw(st.integers(1, 10_000))
        arrays = {
            "w": np.array(values, np.float32).reshape(shape),
            "steps": np.array(draw(st.integers(0, 1000)), np.int64),
        }
        made.append(
            (
                Records(
                    arrays={"arrays": arrays},
                    metrics={"metrics": {"loss": draw(FLOATS), "num-examples": weight}},
                ),
                float(weight),
            )
        )
    return made


def folded(items: list[tuple[Records, float]]) -> WeightedMean:
    mean = WeightedMean()
    for records, weight in items:
        mean.add(records, weight)
    return mean


def close(a: Records, b: Records) -> None:
    for key, array in a.arrays["arrays"].items():
        np.testing.assert_allclose(array, b.arrays["arrays"][key], rtol=2e-5, atol=2e-2)
    np.testing.assert_allclose(
        a.metrics["metrics"]["loss"], b.metrics["metrics"]["loss"], rtol=1e-9, atol=1e-6
    )
    assert a.metrics["metrics"]["num-examples"] == b.metrics["metrics"]["num-examples"]


@settings(max_examples=40)
@given(updates())
def test_the_fold_is_what_fedavg_gives(items: list[tuple[Records, float]]) -> None:
    mean = folded(items).records()
    dtypes = {key: array.dtype for key, array in mean.arrays["arrays"].items()}
    assert dtypes == {"w": np.float32, "steps": np.int64}
    contents = [
        RecordDict(
            {
                "arrays": ArrayRecord({k: Array(v) for k, v in r.arrays["arrays"].items()}),
                "metrics": MetricRecord(dict(r.metrics["metrics"])),
            }
        )
        for r, _ in items
    ]
    expected = aggregate_arrayrecords(contents, "num-examples")
    for key, array in mean.arrays["arrays"].items():
        np.testing.assert_allclose(
            array, expected[key].numpy(), rtol=2e-5, atol=0.51 if key == "steps" else 2e-2
        )
    np.testing.assert_allclose(
        mean.metrics["metrics"]["loss"],
        aggregate_metricrecords(contents, "num-examples")["loss"],
        rtol=1e-6,
        atol=1e-6,
    )


@settings(max_examples=40)
@given(updates(), st.integers(0, 6), st.integers(0, 6))
def test_addition_is_associative_and_commutative_with_a_neutral_element(
    items: list[tuple[Records, float]], i: int, j: int
) -> None:
    i, j = sorted((min(i, len(items)), min(j, len(items))))
    a, b, c = folded(items[:i]), folded(items[i:j]), folded(items[j:])
    whole = folded(items)
    close(((a + b) + c).records(), (a + (b + c)).records())
    close(((a + b) + c).records(), whole.records())
    close((c + (b + a)).records(), whole.records())
    close((WeightedMean() + whole).records(), whole.records())
    close((whole + WeightedMean()).records(), whole.records())


def test_adding_two_means_changes_neither() -> None:
    a, b = folded([(update(1.0, loss=1.0), 10.0)]), folded([(update(3.0, loss=1.0), 10.0)])
    np.testing.assert_allclose((a + b).records().arrays["arrays"]["w"], 2.0)
    np.testing.assert_allclose(a.records().arrays["arrays"]["w"], 1.0)
    np.testing.assert_allclose(b.records().arrays["arrays"]["w"], 3.0)


@settings(max_examples=40)
@given(updates(), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_reach_a_float32_model(
    items: list[tuple[Records, float]], random: object
) -> None:
    shuffled = list(items)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    close(folded(items).records(), folded(shuffled).records())
    a, b = (folded(order).records().arrays["arrays"]["w"] for order in (items, shuffled))
    np.testing.assert_allclose(a, b, rtol=1.2e-7, atol=1e-12)


def test_float16_is_summed_in_float64_and_returned_as_float16() -> None:
    items = [
        (
            Records(
                arrays={"arrays": {"w": np.full(2, v, np.float16)}},
                metrics={"m": {"num-examples": 1}},
            ),
            1.0,
        )
        for v in (1.0, 2.0)
    ]
    assert folded(items).records().arrays["arrays"]["w"].tolist() == [1.5, 1.5]
    assert folded(items).records().arrays["arrays"]["w"].dtype == np.float16


def test_aggregated_float64_goes_back_to_the_models_dtype() -> None:
    model = {"w": np.ones(2, np.float32), "n": np.array(4, np.int64)}
    restored = restore_dtypes({"w": np.ones(2, np.float64), "n": np.array(4.6)}, array_specs(model))
    assert (restored["w"].dtype, restored["n"].dtype, int(restored["n"])) == (
        np.float32,
        np.int64,
        5,
    )


def test_one_device_with_other_metrics_is_refused_and_the_mean_is_unharmed() -> None:
    mean = folded([(update(examples=5, loss=1.0), 5.0)])
    with pytest.raises(ProtocolError, match="differ from those of the other devices"):
        mean.add(update(examples=5, accuracy=1.0), 5.0)
    assert (mean.count, mean.records().metrics["metrics"]["num-examples"]) == (1, 5)


def test_a_mean_in_parts_is_the_file_of_the_mean() -> None:
    arrays = {"w": np.arange(70_000, dtype=np.float32), "n": np.array(3, np.int64)}
    metrics = {"m": {"num-examples": 2, "losses": [0.5] * 2000}}
    mean = folded([(Records(arrays={"a": arrays}, metrics=metrics), 2.0)] * 3)
    parts = list(mean.encoded(100_000))
    assert b"".join(parts) == encode_records(mean.records())
    assert {len(part) for part in parts[:-1]} == {100_000}


def test_pieces_are_regrouped_to_one_size() -> None:
    pieces = [b"abc", memoryview(b""), b"", b"d", b"efghij"]
    assert list(regroup(pieces, 4)) == [b"abcd", b"efgh", b"ij"]
    assert list(regroup([], 4)) == []


@pytest.mark.parametrize("count", range(1, 10))
def test_updates_that_wait_for_others_are_in_the_mean(count: int) -> None:
    mean = folded([(update(float(number), examples=1), 1.0) for number in range(count)])
    np.testing.assert_allclose(mean.records().arrays["arrays"]["w"], (count - 1) / 2)


def test_what_is_not_numbers_is_refused_and_the_mean_is_unharmed() -> None:
    text = Records(
        arrays={"arrays": {"w": np.array([b"abc"] * 3)}}, metrics={"metrics": {"num-examples": 5}}
    )
    mean = WeightedMean()
    for _ in range(2):
        with pytest.raises(ProtocolError, match="no numbers"):
            mean.add(text, 5.0)
    mean.add(update(3.0), 10.0)
    np.testing.assert_allclose(mean.records().arrays["arrays"]["w"], 3.0)


def test_a_count_of_examples_is_whole_where_all_devices_tell_whole_ones() -> None:
    def told(*counts: float) -> WeightedMean:
        arrays = {"arrays": {"w": np.zeros(1, np.float32)}}
        items = [Records(arrays=arrays, metrics={"m": {"num-examples": count}}) for count in counts]
        return folded([(item, float(count)) for item, count in zip(items, counts, strict=True)])

    def count(mean: WeightedMean) -> str:
        return repr(mean.records().metrics["m"]["num-examples"])

    assert count(told(1, 2) + told(3)) == "6"
    assert count(told(1, 2) + told(3.0)) == count(told(3.0) + told(1, 2)) == "6.0"
