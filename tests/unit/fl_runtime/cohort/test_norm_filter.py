"""Outliers among a phase's updates."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.phases import phase_request, stored_weights, update

from edge.protocol.errors import ProtocolError
from edge.protocol.records import Records
from fl_runtime.cohort.norm_filter import NormFilter, change_norm


def norm_filter(**changes: object) -> NormFilter:
    return NormFilter(stored_weights(), phase_request("a", **changes))


def test_the_norm_is_over_all_float_arrays_of_both() -> None:
    before = {"a": np.zeros(2, np.float32), "n": np.array(0)}
    after = {"a": np.array([3, 0], np.float32), "n": np.array(99), "new": np.ones(5)}
    assert change_norm(before, after) == 3.0
    assert change_norm(before, {**after, "a": np.array([3, 4], np.float32)}) == 5.0


def test_with_a_limit_each_update_is_judged_at_once() -> None:
    found = norm_filter(norm_limit=2.0)
    assert not found.is_unjudged
    assert found.norm_of(update(1.0)) == pytest.approx(3**0.5)
    with pytest.raises(ProtocolError, match="at most 2 is plausible") as refused:
        found.norm_of(update(2.0))
    assert refused.value.code == "norm"


def test_without_a_limit_norms_are_measured_and_left_to_the_server() -> None:
    found = norm_filter(norm_factor=3.0)
    assert found.is_unjudged
    assert found.norm_of(update(1e6)) == pytest.approx(3**0.5 * 1e6)


@pytest.mark.parametrize(
    "changes",
    [{}, {"norm_limit": 1.0, "checked": False}, {"norm_limit": 1.0, "kind": "evaluate"}],
)
def test_other_phases_are_not_filtered(changes: dict) -> None:
    found = norm_filter(**changes)
    assert (found.is_unjudged, found.norm_of(update(99.0)), found.norm_of(Records())) == (
        False,
        0,
        0,
    )
