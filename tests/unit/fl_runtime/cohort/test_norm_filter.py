"""Outliers among a phase's updates."""

from __future__ import annotations

import pytest
from fakes.phases import phase_request, stored_weights, update

from edge.protocol.errors import ProtocolError
from edge.protocol.records import Records
from fl_runtime.cohort.norm_filter import NormFilter


def norm_filter(**changes: object) -> NormFilter:
    return NormFilter(stored_weights(), phase_request("a", **changes))


def test_with_a_limit_each_update_is_judged_at_once() -> None:
    found = norm_filter(norm_limit=2.0)
    assert not found.is_unjudged
    found.judge(found.measure(update(1.0)))
    with pytest.raises(ProtocolError, match="at most 2 is plausible") as refused:
        found.judge(found.measure(update(2.0)))
    assert refused.value.code == "norm"


def test_without_a_limit_norms_are_measured_and_left_to_the_server() -> None:
    found = norm_filter(norm_factor=3.0)
    assert found.is_unjudged
    assert found.measure(update(1e6)) == pytest.approx(3**0.5 * 1e6)
    found.judge(3**0.5 * 1e6)


@pytest.mark.parametrize(
    "changes",
    [{}, {"norm_limit": 1.0, "checked": False}, {"norm_limit": 1.0, "kind": "evaluate"}],
)
def test_other_phases_are_not_filtered(changes: dict) -> None:
    found = norm_filter(**changes)
    assert (found.measures, found.is_unjudged, found.measure(update(99.0))) == (False, False, 0)
    found.judge(found.measure(Records()))


def test_a_limit_below_one_is_a_limit_and_a_change_may_equal_it() -> None:
    found = norm_filter(norm_limit=0.5)
    assert not found.is_unjudged
    found.judge(0.5)
    with pytest.raises(ProtocolError, match=r"at most 0\.5 is plausible"):
        found.judge(0.51)
