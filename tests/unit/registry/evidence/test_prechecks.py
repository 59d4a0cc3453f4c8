"""Prechecks say what they hold against a candidate."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fakes.devices_table import status
from fakes.evidence import comparison, evidence
from fakes.serving import serving

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
