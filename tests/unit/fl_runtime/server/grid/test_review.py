"""What counts is judged over the devices of all cohorts."""

from __future__ import annotations

from typing import Any

from fakes.phases import device_result

from fl_runtime.run.messages import DeviceResult
from fl_runtime.server.grid.phase_policy import Expectation, PhasePolicy
from fl_runtime.server.grid.requests import NORM_FACTOR, weight_limit
from fl_runtime.server.grid.review import Reviewer


def result(device: str, examples: float = 10, norm: float = 1.0, **metrics: Any) -> DeviceResult:
    return device_result(device, examples=examples, norm=norm, metrics=metrics or {"loss": 1.0})


def judged(*results: DeviceResult, expected: Expectation | None = None, **policy: Any) -> list[str]:
    under = PhasePolicy(
        available=(), **{"checked": True, "expected": {"train": expected or Expectation()}} | policy
    )
    return [item.code for item in Reviewer("train", under, 100.0).review(results)]


def test_the_metrics_of_most_devices_are_usual() -> None:
    results = [result("x", mine=1.0), result("y", loss=[1.0]), result("a"), result("b")]
    assert judged(*results) == ["metrics", "metrics", "", ""]
    refused = Reviewer("train", PhasePolicy(available=(), checked=True), 0.0).review(results)[0]
    assert refused.metrics == {"mine": 1.0}, "it keeps its vote for the next round"


def test_of_equally_many_those_that_earlier_rounds_had_are_usual() -> None:
    results = [result("x", mine=1.0), result("a")]
    for layout, codes in (({"loss": -1}, ["metrics", ""]), ({"mine": -1}, ["", "metrics"])):
        assert judged(*results, expected=Expectation(layout=layout)) == codes


def test_an_update_is_held_against_ten_times_the_median_norm_unless_a_limit_is_known() -> None:
    results = [result("x", norm=NORM_FACTOR * 1.1), result("a"), result("b")]
    assert judged(*results) == ["norm", "", ""]
    at_limit = result("x", norm=NORM_FACTOR * 1.0)
    assert judged(at_limit, *results[1:]) == ["", "", ""]
    still = [result(name, norm=0.0) for name in "ab"]
    assert judged(result("x", norm=5.0), *still) == ["", "", ""], "where most change nothing"
    for limit in (1e9, 0.5):
        assert judged(*results, norm_limit=limit) == ["", "", ""], "cohorts have judged by it"
    assert judged(*results[:2]) == ["", ""], "two cannot tell which of them is one"


def test_a_count_is_held_against_the_median_and_the_devices_own() -> None:
    at_limit = [result("x", 1000), result("a"), result("b")]
    assert judged(*at_limit) == ["", "", ""]
    assert judged(result("x", 1001), *at_limit[1:]) == ["weight", "", ""]
    few = [result(name, 0.005) for name in "ab"]
    assert judged(result("x", 0.51), *few) == ["weight", "", ""], "counts may be shares"
    before = Expectation(median_examples=10.0)
    assert judged(result("x", 1001), result("a"), expected=before) == ["weight", ""]
    own = Expectation(examples={"x": 5.0, "a": 1000.0})
    assert judged(result("x", 501), *at_limit[1:], expected=own) == ["weight", "", ""]


def test_unchecked_replies_and_failures_are_left_alone() -> None:
    failed = device_result("f", status="error", code="norm")
    assert judged(failed, result("a"), result("b")) == ["norm", "", ""]
    odd = [result("x", 1e9, 1e9, mine=1.0), result("a"), result("b")]
    assert judged(*odd, checked=False) == ["", "", ""]


def test_a_weight_limit_needs_a_factor_and_something_known() -> None:
    assert weight_limit(100.0, 0.0, None) == 0.0
    assert weight_limit(0.0, 10.0, 5.0) == 0.0
    assert weight_limit(100.0, 10.0, None) == 1000.0
    assert weight_limit(100.0, 0.0, 5.0) == 500.0
