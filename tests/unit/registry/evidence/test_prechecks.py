"""Prechecks say what they hold against a candidate."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fakes.devices_table import status
from fakes.evidence import comparison, evidence
from fakes.serving import serving

from registry.evidence.model import (
    ComparisonSummary,
    Drift,
    FeatureShift,
    GroupEvaluation,
    Participation,
)
from registry.evidence.prechecks import check, failed
from registry.policy import PrecheckPolicy


@pytest.mark.parametrize(
    ("policy", "failing"),
    [
        ({}, []),
        ({"better_by": 0.99}, ["better"]),
        ({"participants": 7}, ["participants"]),
        ({"group_worse_by": 0.0}, []),
    ],
)
def test_each_check_has_its_limit(policy: dict[str, Any], failing: list[str]) -> None:
    checks = check(evidence(champion=9.0), PrecheckPolicy(**policy))
    assert [item.name for item in checks if not item.passed] == failing
    assert [item.name for item in checks] == [
        "better",
        "groups",
        "participants",
        "participation",
        "rejected",
        "metrics",
        "drift",
    ]
    assert all(name in failed(checks) for name in failing)


def test_a_model_that_nothing_judges_is_held() -> None:
    found = msgspec.structs.replace(evidence(champion=9.0), metric="-", value=None)
    checks = check(found, PrecheckPolicy())
    assert (checks[0].name, checks[0].passed) == ("judged", False)
    assert "no metric judges the model" in failed(checks)


def test_a_group_that_loses_fails_the_candidate_although_the_mean_is_better() -> None:
    found = evidence(champion=4.0)
    group = msgspec.structs.replace(found.compared.groups[0], worse_by=0.3, devices=2)
    better = msgspec.structs.replace(
        found, compared=msgspec.structs.replace(found.compared, worse_by=-0.1, groups=[group])
    )
    checks = check(better, PrecheckPolicy())
    assert [item.name for item in checks if not item.passed] == ["groups"]
    assert "the worst group is" in failed(checks)
    assert not failed(check(better, PrecheckPolicy(group_devices=3)))


def test_a_champion_that_could_not_be_compared_fails_the_check() -> None:
    found = evidence()
    lost = msgspec.structs.replace(
        found.compared, candidate=None, champion_value=None, reason="another layout"
    )
    found = msgspec.structs.replace(found, compared=lost)
    assert "another layout" in failed(check(found, PrecheckPolicy()))


def test_without_a_champion_there_is_nothing_to_beat() -> None:
    first = check(evidence(None, reason="no earlier version"), PrecheckPolicy())[0]
    assert (first.passed, first.message) == (
        True,
        "there is no champion to beat (no earlier version)",
    )


def lying(weight: float, **lie: float) -> Any:
    """The evidence where device d5 lies about one of the two models."""
    rows = comparison(weight).devices
    told = msgspec.structs.asdict(rows[5])
    changes = {model: {**told[model], "loss": loss} for model, loss in lie.items()}
    rows[5] = msgspec.structs.replace(rows[5], **changes)
    return evidence(weight, devices_compared=rows)


@pytest.mark.parametrize("lie", [{"candidate": -1e9}, {"champion": 1e9}, {"champion": 1.7e308}])
def test_a_device_that_lies_does_not_beat_the_champion_and_fails_a_check(lie: dict) -> None:
    """The champion at 3.3 is as good as the candidate: the lie must not decide."""
    found = lying(3.0, **lie)
    checks = {item.name: item for item in check(found, PrecheckPolicy(better_by=0.2))}
    assert not checks["better"].passed
    if max(map(abs, lie.values())) < 1e200:
        assert not checks["metrics"].passed
        assert "1 of 6 devices report loss out of all proportion (d5)" in checks["metrics"].message
        allowed = {item.name: item for item in check(found, PrecheckPolicy(outliers=0.2))}
        assert allowed["metrics"].passed


def test_inputs_that_have_moved_fail_the_check() -> None:
    found = evidence(devices=[status("d0", "x/1", serving(9.0))])
    assert "moved by 4 standard deviations (wind by 4" in failed(check(found, PrecheckPolicy()))
    assert not failed(check(found, PrecheckPolicy(drift=4.0)))


SEEN = {"champion": "x/1", "candidate": 0.9, "champion_value": 0.8, "devices": 4}


def judged(name: str, policy: dict[str, Any], **parts: Any) -> tuple[bool, str]:
    """One check of evidence whose given parts are replaced: whether it passed, and its message."""
    found = msgspec.structs.replace(evidence(None), **parts)
    (item,) = (item for item in check(found, PrecheckPolicy(**policy)) if item.name == name)
    return item.passed, item.message


def group(worse_by: float, devices: int = 2, champion: float | None = 0.8) -> GroupEvaluation:
    return GroupEvaluation(
        kind="site",
        name=f"{worse_by:g}",
        devices=devices,
        examples=1.0,
        candidate=0.7,
        champion=champion,
        worse_by=worse_by,
    )


@pytest.mark.parametrize(
    ("name", "policy", "at", "beyond"),
    [
        (
            "better",
            {"better_by": 0.25},
            {"compared": ComparisonSummary(**SEEN, worse_by=-0.25)},
            {"compared": ComparisonSummary(**SEEN, worse_by=-0.2)},
        ),
        (
            "groups",
            {"group_worse_by": 0.25},
            {"compared": ComparisonSummary(**SEEN, groups=[group(0.25), group(0.0)])},
            {"compared": ComparisonSummary(**SEEN, groups=[group(0.0), group(0.3)])},
        ),
        (
            "metrics",
            {"outliers": 0.25},
            {"compared": ComparisonSummary(**SEEN, outliers=["d0"])},
            {"compared": ComparisonSummary(**SEEN, outliers=["d0", "d1"])},
        ),
        (
            "participants",
            {"participants": 3},
            {
                "participation": Participation(
                    devices=4, ever=4, by_round=[1, 3], wanted_by_round=[]
                )
            },
            {
                "participation": Participation(
                    devices=4, ever=4, by_round=[4, 2], wanted_by_round=[]
                )
            },
        ),
        (
            "participation",
            {"participation": 0.5},
            {"participation": Participation(devices=4, ever=2, by_round=[2], wanted_by_round=[])},
            {"participation": Participation(devices=4, ever=1, by_round=[1], wanted_by_round=[])},
        ),
        (
            "rejected",
            {"rejected": 0.5},
            {
                "participation": Participation(
                    devices=4,
                    ever=4,
                    by_round=[4],
                    wanted_by_round=[],
                    updates=4,
                    rejected={"shape": 1, "nan": 1},
                )
            },
            {
                "participation": Participation(
                    devices=4,
                    ever=4,
                    by_round=[4],
                    wanted_by_round=[],
                    updates=4,
                    rejected={"shape": 2, "nan": 1},
                )
            },
        ),
        (
            "drift",
            {"drift": 2.0},
            {"drift": Drift(devices=1, score=2.0)},
            {"drift": Drift(devices=1, score=2.1)},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_limit_itself_passes_and_what_is_beyond_fails(
    name: str, policy: dict[str, Any], at: dict[str, Any], beyond: dict[str, Any]
) -> None:
    assert judged(name, policy, **at)[0]
    assert not judged(name, policy, **beyond)[0]


def test_groups_that_are_too_small_or_have_no_champion_are_not_judged() -> None:
    small = ComparisonSummary(**SEEN, groups=[group(0.9, devices=1), group(0.9, champion=None)])
    assert judged("groups", {}, compared=small) == (
        True,
        "no group has 2 devices that evaluated both",
    )
    both = ComparisonSummary(**SEEN, groups=[group(0.0), group(0.5), group(0.2)])
    assert "the worst group is site 0.5" in judged("groups", {}, compared=both)[1]


def test_a_run_that_nobody_took_part_in_passes_none_of_the_counts() -> None:
    nobody = Participation(devices=0, ever=0, by_round=[], wanted_by_round=[])
    assert judged("participants", {}, participation=nobody) == (
        False,
        "0 devices took part in the last round; at least 1 must",
    )
    assert not judged("participation", {}, participation=nobody)[0]
    assert judged("rejected", {"rejected": 0.0}, participation=nobody)[0]


@pytest.mark.parametrize(
    ("better_by", "words"),
    [
        (0.1, "it must be better by 10.0%"),
        (-0.1, "it may be worse by 10.0%"),
        (0.0, "it must not be worse"),
    ],
)
def test_what_is_asked_of_the_candidate_is_said(better_by: float, words: str) -> None:
    compared = ComparisonSummary(**SEEN, candidate_robust=0.9, champion_robust=0.7)
    message = judged("better", {"better_by": better_by}, compared=compared)[1]
    assert message.endswith(words)
    assert " 0.9, champion 0.8 (robust 0.7) on 4 devices" in message


def test_what_could_not_be_compared_fails_whichever_model_is_missing() -> None:
    for lost in ("candidate", "champion_value"):
        compared = ComparisonSummary(**{**SEEN, lost: None}, reason="another layout")
        assert not judged("better", {}, compared=compared)[0]


def test_the_sentence_counts_the_failed_checks_and_names_at_most_three_devices_or_inputs() -> None:
    shifts = [FeatureShift(feature=name, shift=3.0, spread=1.0) for name in "abcd"]
    found = msgspec.structs.replace(
        evidence(None), drift=Drift(devices=2, score=3.0, features=shifts)
    )
    checks = check(found, PrecheckPolicy())
    assert failed(checks).startswith(f"1 of {len(checks)} prechecks fail: drift: ")
    assert "(a by 3, b by 3, c by 3)" in failed(checks)
    assert failed([item for item in checks if item.passed]) == ""
    far = ComparisonSummary(**SEEN, outliers=list("abcd"))
    assert judged("metrics", {}, compared=far)[1].endswith("(a, b, c); limit 0%")
    assert judged("metrics", {}, compared=ComparisonSummary())[1].startswith("no device reports")


def test_where_no_device_was_compared_none_is_out_of_all_proportion() -> None:
    passed, message = judged("metrics", {"outliers": 0.0}, compared=ComparisonSummary(devices=0))
    assert passed
    assert "no device reports" in message
