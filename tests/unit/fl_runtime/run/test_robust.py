"""A mean that a few devices do not decide."""

from __future__ import annotations

import math

import pytest

from fl_runtime.run.robust import LARGEST, capped_mean, deviations, robust_mean


def test_where_nobody_lies_outside_it_is_the_weighted_mean() -> None:
    values, weights = [0.5, 0.6, 0.7, 0.55], [10.0, 20.0, 30.0, 10.0]
    mean = sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
    assert robust_mean(values, weights) == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("lie", [1e9, -1e9, 1e200, 1.0])
def test_one_of_four_does_not_decide(lie: float) -> None:
    assert robust_mean([0.1, 0.11, 0.09, lie], [10.0] * 3 + [1e9]) == pytest.approx(0.1)


def test_three_of_eight_in_league_do_not_decide() -> None:
    honest = [0.1, 0.11, 0.09, 0.12, 0.08]
    assert robust_mean([*honest, 0.99, 0.99, 0.99], [10.0] * 8) == pytest.approx(0.1)


def test_a_weight_counts_three_times_the_median_at_most() -> None:
    assert capped_mean([0.0, 0.0, 1.0], [10.0, 10.0, 1e9]) == pytest.approx(30 / 50)
    assert capped_mean([0.0, 1.0], [1.0, 99.0]) == pytest.approx(0.99), "two have no median"
    assert capped_mean([1.0, 3.0, 5.0], [0.0, 0.0, 0.0]) == 3.0
    assert capped_mean([1.0, 3.0, 5.0], [0.0, 0.0, 7.0]) == 5.0


def test_deviations_are_in_units_of_the_others() -> None:
    assert deviations([1.0, 1e9]) == [0.0, 0.0]
    assert deviations([0.0, 0.0, 0.0, 1.0]) == [0.0, 0.0, 0.0, math.inf]
    assert deviations([1.0, 1.0, 1.0, 1.1])[3] == pytest.approx(2.0)
    assert deviations([1.0, 1.0, 1.0]) == [0.0, 0.0, 0.0]
    assert deviations([0.0, 1.0, 3.0]) == pytest.approx([1 / 1.4826, 0.0, 2 / 1.4826])
    assert deviations([-2.0, -2.0, -2.0, -2.2])[3] == pytest.approx(2.0)
    with pytest.raises(ValueError, match="no value"):
        robust_mean([], [])


def test_a_value_at_the_limit_counts_and_one_beyond_it_does_not() -> None:
    """The deviation is 5 % of the median 1.0: the limit is 3.5 times that."""
    at = [1.0, 1.0, 1.0, 1.0, 1.174]
    assert robust_mean(at, [1.0] * 5) == pytest.approx(sum(at) / 5)
    assert robust_mean([1.0, 1.0, 1.0, 1.0, 1.176], [1.0] * 5) == 1.0
    exactly = [20.0, 20.0, 20.0, 20.0, 23.5]
    assert deviations(exactly)[4] == 3.5
    assert robust_mean(exactly, [1.0] * 5) == sum(exactly) / 5


def test_negative_and_missing_weights() -> None:
    assert capped_mean([2.0, 4.0], [0.0, -1.0]) == 3.0
    assert capped_mean([2.0, 4.0], [0.0, 0.5]) == 4.0, "one that counts is enough"
    assert capped_mean([0.0, 0.0, 1.0], [10.0, 10.0, 29.0]) == pytest.approx(29 / 49)
    assert capped_mean([0.0, 0.0, 1.0], [0.5, 0.5, 9.0]) == pytest.approx(1.5 / 2.5)


def test_the_largest_value_that_counts_leaves_room_for_the_sums_of_a_fleet() -> None:
    """docs/decisions/0026: a thousand such values times a plausible weight are finite."""
    assert LARGEST == 1e200
    assert math.isfinite(robust_mean([LARGEST] * 1000, [1e12] * 1000))
