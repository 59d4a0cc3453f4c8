"""Cohorts and the ids by which Flower knows devices."""

from __future__ import annotations

import pytest
from flwr.app import Context, RecordDict

from fl_runtime.run.cohorts import MAX_COHORTS, flower_run_id, form_cohorts, node_id


def test_node_ids_are_stable_and_fit_flowers_integers() -> None:
    assert node_id("f", "d0") == node_id("f", "d0") != node_id("g", "d0")
    assert 0 <= node_id("f", "d0") < 2**63
    assert 0 <= flower_run_id("run-1") < 2**63
    assert Context(1, node_id("f", "d"), {}, RecordDict(), {}).node_id > 0


@pytest.mark.parametrize(
    ("count", "per_proxy", "sizes"),
    [(0, 5, []), (5, 0, [5]), (5, 1, [1] * 5), (5, 2, [2, 2, 1]), (4, 100, [4])],
)
def test_cohorts_are_even(count: int, per_proxy: int, sizes: list[int]) -> None:
    cohorts = form_cohorts("f", [f"d{i}" for i in range(count)], per_proxy)
    assert sorted((len(c.members) for c in cohorts), reverse=True) == sizes


def test_members_keep_their_labels() -> None:
    (cohort,) = form_cohorts("f", ["b", "a"], 0, {"a": {"site": "north"}})
    assert [(m.device, m.labels) for m in cohort.members] == [("a", {"site": "north"}), ("b", {})]


def test_there_are_no_more_cohorts_than_the_state_machine_has_proxies_for() -> None:
    devices = [f"d{i}" for i in range(5_000)]
    cohorts = form_cohorts("f", devices, 100)
    assert len(cohorts) == MAX_COHORTS == 40
    assert {len(cohort.members) for cohort in cohorts} == {125}
    assert sorted(m.device for cohort in cohorts for m in cohort.members) == sorted(devices)
