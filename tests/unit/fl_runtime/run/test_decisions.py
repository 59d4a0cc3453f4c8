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
