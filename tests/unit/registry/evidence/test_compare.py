"""Candidate against champion, by device and by group."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fakes.evidence import CANDIDATE, DEVICES, comparison

from registry.evidence.compare import compare
from registry.evidence.model import weighted_mean, worse_by


def test_the_worst_group_and_the_worst_device_come_first() -> None:
    """A champion at 4.2 is nearly perfect for device d4: the candidate, a mean, is worse there."""
    found = compare(comparison(4.2), "loss", "minimize")
    assert {(g.kind, g.name) for g in found.groups} >= {
        ("site", "north"),
        ("site", "south"),
        ("cohort", "c0000"),
    }
    assert found.worst[0].device == "d4"
    assert found.groups[0].worse_by == max(group.worse_by for group in found.groups)
    south = next(group for group in found.groups if group.name == "south")
    assert south.champion == pytest.approx((0.2 * 50 + 0.8 * 60) / 110)
    assert found.better_on == sum(device.worse_by < 0 for device in found.worst)
    assert found.candidate == pytest.approx(
        sum(abs(CANDIDATE - i) * (i + 1) for i in range(6)) / sum(i + 1 for i in range(6))
    )


def test_a_device_that_did_not_evaluate_the_champion_counts_for_neither() -> None:
    rows = comparison().devices
    rows[0] = msgspec.structs.replace(rows[0], champion={}, reason="too old")
    found = compare(comparison(devices=rows), "loss", "minimize")
    assert found.devices == 5
    assert "d0" not in {device.device for device in found.worst}


def test_where_no_device_evaluated_both_the_commonest_reason_is_said() -> None:
    rows = [msgspec.structs.replace(row, champion={}, reason="old") for row in comparison().devices]
    found = compare(comparison(devices=rows), "loss", "minimize")
    assert (found.champion, found.champion_value, found.devices) == ("x/1", None, 6)
    assert found.reason == "no device evaluated both (old)"
    cut = compare(comparison(devices=rows, reason="it took too long"), "loss", "minimize")
    assert cut.reason == "it took too long"
    few = [msgspec.structs.replace(row, reason="") for row in rows[:-1]]
    mostly = compare(comparison(devices=[*few, rows[-1]]), "loss", "minimize")
    assert mostly.reason == "no device evaluated both (old)", "most say nothing"
    silent = compare(comparison(devices=[]), "loss", "minimize")
    assert silent.reason == "no device evaluated both (none reports loss)"


def test_without_a_champion_devices_are_judged_by_the_metric_alone() -> None:
    found = compare(comparison(None, reason="no earlier version"), "loss", "minimize")
    assert (found.champion, found.reason, found.devices) == ("", "no earlier version", 6)
    assert found.worst[0].device == "d0"
    assert {device.worse_by for device in found.worst} == {0.0}
    assert {group.worse_by for group in found.groups} == {0.0}
    assert compare(comparison(None), "loss", "maximize").worst[0].device == "d3"
    assert found.distribution == sorted(abs(CANDIDATE - i) for i in range(len(DEVICES)))


@pytest.mark.parametrize(
    ("candidate", "champion", "goal", "worse"),
    [
        (1.1, 1.0, "minimize", 0.1),
        (0.9, 1.0, "maximize", 0.1),
        (0.5, 0.0, "minimize", 0.5),
        (-2.0, -1.0, "minimize", -1.0),
    ],
)
def test_worse_is_a_share_of_the_champions_metric(
    candidate: float, champion: float, goal: Any, worse: float
) -> None:
    assert worse_by(candidate, champion, goal) == pytest.approx(worse)


def test_a_mean_without_weights_is_the_plain_one() -> None:
    assert weighted_mean([(1.0, 0.0), (3.0, 0.0)]) == 2.0
    assert weighted_mean([(1.0, 3.0), (3.0, 1.0)]) == 1.5


def test_devices_that_do_not_report_the_candidates_metric_count_for_neither() -> None:
    rows = comparison().devices
    rows[1] = msgspec.structs.replace(rows[1], candidate={"num-examples": 10})
    rows[2] = msgspec.structs.replace(rows[2], candidate={"loss": "low", "num-examples": 10})
    rows[3] = msgspec.structs.replace(rows[3], champion={"loss": float("nan")})
    found = compare(comparison(devices=rows), "loss", "minimize")
    assert {device.device for device in found.worst} == {"d0", "d4", "d5"}
    assert (found.devices, len(found.distribution)) == (3, 3)


def deviating(*losses: float) -> Any:
    """A comparison without a champion, of devices with these losses and as many examples each."""
    rows = [
        msgspec.structs.replace(row, candidate={"loss": loss, "num-examples": 10})
        for row, loss in zip(comparison(None).devices, losses, strict=False)
    ]
    return compare(comparison(None, devices=rows), "loss", "minimize")


def test_a_device_out_of_all_proportion_is_in_no_group_and_the_others_are() -> None:
    found = deviating(1e9, 20.0, 20.0, 20.0, 20.0)
    assert found.worst[0].device == "d0"
    north = next(group for group in found.groups if group.name == "north")
    assert (north.devices, north.candidate) == (3, 20.0)


def test_a_device_at_the_limit_of_proportion_is_in_its_group() -> None:
    """The deviation is 5 % of the median 20: 30 deviates by exactly ten times as much."""
    north = next(g for g in deviating(30.0, 20.0, 20.0, 20.0, 20.0).groups if g.name == "north")
    assert north.devices == 4
    north = next(g for g in deviating(30.1, 20.0, 20.0, 20.0, 20.0).groups if g.name == "north")
    assert north.devices == 3


def test_devices_that_tell_no_examples_weigh_nothing_beside_those_that_do() -> None:
    rows = comparison().devices
    told = {**rows[0].candidate}
    del told["num-examples"]
    rows[0] = msgspec.structs.replace(rows[0], candidate=told)
    found = compare(comparison(devices=rows), "loss", "minimize")
    assert next(d for d in found.worst if d.device == "d0").examples == 0.0


def test_without_a_champion_the_group_with_the_worst_metric_comes_first() -> None:
    """d0 to d3 are in the north, d4 and d5 in the south; the candidate suits device 3."""
    for goal, first in (("minimize", "north"), ("maximize", "south")):
        found = compare(comparison(None), "loss", goal)
        sites = [group for group in found.groups if group.kind == "site"]
        assert sites[0].name == first


def test_a_device_for_which_both_are_as_good_is_none_that_the_candidate_is_better_on() -> None:
    found = compare(comparison(CANDIDATE), "loss", "minimize")
    assert (found.devices, found.better_on) == (6, 0)
