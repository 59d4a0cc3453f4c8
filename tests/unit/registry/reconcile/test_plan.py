"""Whatever was done on either side, and wherever it was interrupted: one reconciliation, and both
registries agree.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from fakes.reconcile_world import OPERATIONS, World, consistent, linked, live_through
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from registry.model_version import RUN_TAG, Package
from registry.reconcile.plan import link, mirrors, plan
from registry.reconcile.repair import repair


@given(OPERATIONS, st.integers(0, 12))
def test_any_history_then_one_reconciliation_ends_consistent(
    operations: list[tuple[str, int, int]], crash_at: int
) -> None:
    """``tests/integration/test_reconcile_histories.py`` tries many more."""
    live_through(operations, crash_at)


@pytest.mark.parametrize(
    ("change", "acts"),
    [
        (lambda w, n: None, []),
        (lambda w, n: w.decide(w.v[n].model_package_arn, "Approved", ""), ["set-tag", "roll-out"]),
        (
            lambda w, n: w.v.update({n: replace(w.v[n], approval="Approved")}),
            ["approve", "set-tag", "roll-out"],
        ),
        (lambda w, n: w.set_champion("m", n), ["approve", "set-tag", "roll-out"]),
        (lambda w, n: w.decide(w.v[n].model_package_arn, "Rejected", ""), ["set-tag"]),
        (lambda w, n: w.p.pop(w.v[n].model_package_arn), ["set-tag"]),
        (lambda w, n: w.v.pop(n), ["reject"]),
        (lambda w, n: w.v.update({n: replace(w.v[n], model_package_arn="")}), ["name"]),
        (lambda w, n: w.v.update({n: replace(w.v[n], model_package_arn="arn:no")}), ["name"]),
        (lambda w, n: w.v.update({n: replace(w.v[n], run="another")}), ["name"]),
    ],
)
def test_each_drift_has_its_repair(change: Any, acts: list[str]) -> None:
    world = World()
    change(world, linked(world))
    assert [item.act for item in plan(world.snapshot())] == acts
    repair(world, world.snapshot(), plan(world.snapshot()))
    world.settle()
    assert plan(world.snapshot()) == []
    consistent(world)


def test_an_interrupted_link_is_completed_and_a_retry_of_it_makes_no_second_version() -> None:
    for steps in (0, 1, 2):
        world = World()
        world.create()
        world.link(next(iter(world.p)), steps)
        assert [item.act for item in plan(world.snapshot())] == [
            ["register"],
            ["name", "give-evidence", "sign"],
            ["give-evidence", "sign"],
        ][steps]
        repair(world, world.snapshot(), plan(world.snapshot()))
        assert plan(world.snapshot()) == []
        assert len(world.v) == 1
        consistent(world)


@pytest.mark.parametrize("why", ["refused", "held"])
def test_an_alias_on_a_model_that_devices_refuse_or_prechecks_hold_goes_back(why: str) -> None:
    world = World()
    good, bad = linked(world), linked(world)
    for number in (good, bad):
        setattr(world, why, {bad})
        world.set_champion("m", number)
        for _ in range(3):
            repair(world, world.snapshot(), plan(world.snapshot()))
            world.settle()
    assert world.runs == good
    assert [v.version for v in world.versions() if v.champion] == [good]
    assert plan(world.snapshot()) == []


def test_packages_that_managed_mlflow_mirrored_are_seen_and_left_alone() -> None:
    world = World()
    linked(world)
    mirror = Package(
        arn="arn:mirror",
        group="m-0a1b2c",
        version=1,
        approval="PendingManualApproval",
        metadata={},
        model_data="",
    )
    world.p[mirror.arn] = mirror
    world.p["arn:other"] = replace(mirror, arn="arn:other", group="other-0a1b2c")
    assert mirrors(world.snapshot()) == [mirror]
    assert plan(world.snapshot()) == []


def test_stale_devices_are_updated_unless_a_rollout_is_under_way() -> None:
    world = World()
    world.runs = linked(world)
    world.set_champion("m", world.runs)
    world.v[world.runs] = replace(world.v[world.runs], approval="Approved", synced="Approved")
    arn = world.v[world.runs].model_package_arn
    world.p[arn] = replace(world.p[arn], approval="Approved")
    world.late = {"d1", "d2"}
    (item,) = plan(world.snapshot())
    assert (item.act, item.subject, item.value) == ("catch-up", f"m/{world.runs}", "d1,d2")
    world.under_way = "9"
    assert plan(world.snapshot()) == []


def test_a_package_leads_to_the_version_that_it_names_only_within_its_run() -> None:
    world = World()
    named = world.v[linked(world)]
    package = world.p[named.model_package_arn]
    lost = replace(named, model_package_arn="")
    assert link([named], [package]) == link([named], []) == {package.arn: named}
    assert link([lost], [package]) == {package.arn: lost}
    assert link([replace(lost, run="another")], [package]) == {}
    of_no_run = replace(package, metadata={**package.metadata, RUN_TAG: ""})
    assert link([replace(lost, run="")], [of_no_run]) == {}
    other = replace(named, version=str(int(named.version) + 1))
    assert link([lost, other], [package]) == {package.arn: other}, "a version names it"


def test_an_alias_where_none_may_be_goes_to_what_the_fleet_runs_or_away() -> None:
    world = World()
    good, bad = linked(world), linked(world)
    world.held = {bad}
    world.v[bad] = replace(world.v[bad], approval="Rejected", synced="Rejected")
    arn = world.v[bad].model_package_arn
    world.p[arn] = replace(world.p[arn], approval="Rejected")
    world.set_champion("m", bad)
    assert [item.act for item in plan(world.snapshot())] == ["drop-alias"]
    repair(world, world.snapshot(), plan(world.snapshot()))
    assert not any(version.champion for version in world.versions())
    world.set_champion("m", bad)
    world.runs = good
    assert [(item.act, item.subject) for item in plan(world.snapshot())] == [
        ("move-alias", f"m/{good}")
    ]


def test_of_a_fleet_that_is_not_known_nothing_runs_and_no_rollout_is_under_way() -> None:
    world = World()
    champion = linked(world)
    world.set_champion("m", champion)
    snapshot = dataclasses.replace(world.snapshot(), fleets={})
    assert [item.act for item in plan(snapshot)] == ["approve", "set-tag", "roll-out"]


@pytest.mark.parametrize("tag", ["approved", "Rejected ", "", "PendingManualApproval"])
def test_a_tag_that_is_no_decision_decides_nothing(tag: str) -> None:
    world = World()
    number = linked(world)
    arn = world.v[number].model_package_arn
    for decided in ("PendingManualApproval", "Approved"):
        world.v[number] = replace(world.v[number], approval=tag, synced=decided)
        world.p[arn] = replace(world.p[arn], approval=decided)
        found = [item for item in plan(world.snapshot()) if item.act in ("approve", "reject")]
        assert found == []


def test_an_approval_in_mlflow_rolls_a_version_out_once() -> None:
    world = World()
    number = linked(world)
    world.v[number] = replace(world.v[number], approval="Approved")
    acts = ["approve", "set-tag"]
    assert [item.act for item in plan(world.snapshot())] == [*acts, "roll-out"]
    world.v[number] = replace(world.v[number], rollout_state="RolledBack")
    assert [item.act for item in plan(world.snapshot())] == acts, "it was on its way before"
    world.v[number] = replace(world.v[number], rollout_state="")
    world.under_way = "9"
    assert [item.act for item in plan(world.snapshot())] == acts, "another one is under way"
