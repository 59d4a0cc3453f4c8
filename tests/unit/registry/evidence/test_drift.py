"""Drift, from the statistics in heartbeats."""

from __future__ import annotations

from fakes.devices_table import status
from fakes.serving import serving
from hypothesis import given
from hypothesis import strategies as st

from edge.protocol.messages import Moments
from registry.evidence.drift import drift_of, servings, shift


def test_drift_is_the_median_devices_largest_shift() -> None:
    found = drift_of(
        {"a": serving(5.0), "b": serving(7.0), "c": serving(8.0), "new": serving(50.0, count=3)}
    )
    assert (found.devices, found.drifted, found.score) == (3, 2, 2.0)
    assert [item.feature for item in found.features] == ["wind", "temperature"]
    assert drift_of({}).devices == 0


def test_a_constant_input_drifts_to_another_constant_but_not_when_it_is_rarely_set() -> None:
    constant = Moments(500, 0.0, 0.0)
    seldom = Moments(500, 0.01, 0.0995)
    assert shift(constant, seldom) < 0.2
    assert shift(seldom, constant) < 0.2
    assert shift(constant, Moments(500, 0.9, 0.0)) == 10.0


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.floats(-1e6, 1e6))
def test_a_shift_is_a_number_between_nothing_and_far(
    mean: float, std: float, recent: float
) -> None:
    assert 0 <= shift(Moments(100, mean, std), Moments(100, recent, 1.0)) <= 10
    assert shift(Moments(100, mean, std), Moments(100, mean, 0.0)) == 0


def test_only_devices_that_use_the_model_and_serve_it_are_asked() -> None:
    devices = [
        status("a", "x/1", serving(5.0)),
        status("b", "x/2", serving(5.0)),
        status("c", "x/1"),
        status("d", None),
    ]
    assert set(servings(devices, "x/1")) == {"a"}
    assert set(servings(devices)) == {"a", "b"}
