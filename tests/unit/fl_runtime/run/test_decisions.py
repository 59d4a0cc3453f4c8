"""What decisions are made from, beside what is reported."""

from __future__ import annotations

import math

import pytest
from fakes.phases import device_result

from fl_runtime.run.decisions import robust_metrics
from fl_runtime.run.messages import DeviceResult
from fl_runtime.run.records import PhaseStats, decisive_metrics, format_metrics, summarize


def evaluated(*values: float, examples: float = 10.0) -> list[DeviceResult]:
    return [
        device_result(f"d{at}", examples=examples, metrics={"acc": value, "num-examples": examples})
        for at, value in enumerate(values)
    ]


def test_a_lie_is_reported_named_and_does_not_decide() -> None:
    results = evaluated(0.1, 0.11, 0.09, 1e9)
    reported = {"acc": sum(r.metrics["acc"] for r in results) / 4, "num-examples": 40}
    robust, outliers = robust_metrics(reported, results)
    assert robust == {"acc": pytest.approx(0.1)}
    assert outliers == {"acc": ["d3"]}
    record = summarize(
        1,
        [PhaseStats("p", "evaluate", 1, 1.0, results)],
        train={},
        evaluate=reported,
        server={},
    )
    assert record.evaluate["acc"] == reported["acc"], "what Flower reports stays"
    assert decisive_metrics(record)["acc"] == pytest.approx(0.1)
    assert format_metrics(record).startswith("acc 2.5e+08 (robust 0.1)")


@pytest.mark.parametrize("lie", [1.7e308, math.inf, math.nan])
def test_a_sum_that_overflows_leaves_a_number_to_decide_by(lie: float) -> None:
    results = evaluated(0.1, 0.11, 0.09, lie, examples=1000.0)
    robust, outliers = robust_metrics({"acc": lie * 10}, results)
    assert robust == {"acc": pytest.approx(0.1)}
    assert outliers == {"acc": ["d3"]}


def test_an_honest_fleet_decides_by_what_is_reported() -> None:
    results = evaluated(0.5, 0.6, 0.7, 0.65)
    robust, outliers = robust_metrics({"acc": 0.6125}, results)
    assert (robust, outliers) == ({"acc": pytest.approx(0.6125)}, {})


def test_what_an_app_aggregates_in_its_own_way_has_no_robust_mean() -> None:
    results = evaluated(0.5, 0.6, 0.7, 1e9)
    assert robust_metrics({"acc": 0.7, "other": 1.0, "text": "x"}, results) == ({}, {})
    assert robust_metrics({"acc": 0.55}, evaluated(0.5, 0.6)) == ({}, {}), "of two none is odd"


def test_two_means_of_another_order_are_the_same_and_two_other_ones_are_not() -> None:
    results = evaluated(0.5, 0.6, 0.7)
    assert robust_metrics({"acc": 0.6 * (1 + 9e-7)}, results)[0]
    assert robust_metrics({"acc": 0.6 * (1 + 2e-6)}, results) == ({}, {})
    assert robust_metrics({"acc": 1e-13}, evaluated(0.0, 0.0, 0.0))[0] == {"acc": 0.0}


def test_only_numbers_of_devices_that_succeeded_count() -> None:
    results = evaluated(0.5, 0.6, 0.7)
    odd = [
        device_result("x", metrics={"acc": True}, examples=10.0),
        device_result("y", metrics={"acc": "0.1"}, examples=10.0),
        device_result("z", status="error", metrics={"acc": 9.0}, examples=10.0),
    ]
    assert robust_metrics({"acc": 0.6, "flag": True}, [*results, *odd])[0] == {"acc": 0.6}
    assert robust_metrics({"num-examples": 10.0}, results) == ({}, {})
    assert robust_metrics({"acc": 0.55}, [*evaluated(0.5, 0.6), *odd]) == ({}, {})


def test_a_device_is_named_only_far_beyond_what_is_left_out() -> None:
    """The deviation is 5 % of the median 1.0: beyond 3.5 of it a value does not count, beyond 10
    its device is named. Of many the first fifty are, by name.
    """
    near = evaluated(1.0, 1.0, 1.0, 1.0, 1.4)
    assert robust_metrics({"acc": 1.08}, near) == ({"acc": 1.0}, {})
    ten = evaluated(20.0, 20.0, 20.0, 20.0, 30.0)
    assert robust_metrics({"acc": 22.0}, ten) == ({"acc": 20.0}, {})
    far = evaluated(1.0, 1.0, 1.0, 1.0, 1.51)
    assert robust_metrics({"acc": 1.102}, far) == ({"acc": 1.0}, {"acc": ["d4"]})
    many = evaluated(*[1.0] * 61, *[9.0] * 60)
    _, outliers = robust_metrics({"acc": 601 / 121}, many)
    assert outliers["acc"] == sorted(f"d{at}" for at in range(61, 121))[:50]


def test_examples_are_those_of_the_update_else_the_reported_ones() -> None:
    reported = [
        device_result(f"d{at}", examples=0.0, metrics={"acc": value, "num-examples": count})
        for at, (value, count) in enumerate([(0.5, 10), (0.6, 10), (0.7, 20)])
    ]
    assert robust_metrics({"acc": 0.625}, reported)[0] == {"acc": pytest.approx(0.625)}
    shares = [
        device_result(f"d{at}", examples=0.0, metrics={"acc": value, "num-examples": count})
        for at, (value, count) in enumerate([(0.5, 0.25), (0.6, 0.25), (0.7, 0.5)])
    ]
    assert robust_metrics({"acc": 0.625}, shares)[0] == {"acc": pytest.approx(0.625)}
    none = [
        device_result(f"d{at}", examples=0.0, metrics={"acc": value, "num-examples": "many"})
        for at, value in enumerate([0.5, 0.6, 0.7])
    ]
    assert robust_metrics({"acc": 0.6}, none) == ({}, {}), "without a weight there is no mean"


@pytest.mark.parametrize("value", [1e201, -1e201])
def test_values_that_are_as_good_as_infinite_are_left_out(value: float) -> None:
    results = evaluated(0.5, 0.6, 0.7, value)
    assert robust_metrics({"acc": math.inf}, results) == (
        {"acc": pytest.approx(0.6)},
        {"acc": ["d3"]},
    )
    assert robust_metrics({"acc": math.inf}, evaluated(value, value, value)) == ({}, {})


def test_the_largest_value_that_counts_is_one_of_the_values() -> None:
    results = evaluated(1e200, 1e200, 1e200)
    assert robust_metrics({"acc": math.inf}, results) == ({"acc": pytest.approx(1e200)}, {})
