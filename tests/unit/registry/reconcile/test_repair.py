"""Repairs are executed one after the other; what fails is said."""

from __future__ import annotations

from fakes.reconcile_world import World, linked
from msgspec.structs import replace

from registry.model_version import Package
from registry.reconcile.model import Repair
from registry.reconcile.plan import plan
from registry.reconcile.repair import repair


def test_what_cannot_be_repaired_is_said_and_keeps_nothing_else_from_it() -> None:
    world = World()
    world.create()
    world.create()
    first, second = sorted(world.p)
    made = world.register

    def refuses(package: Package) -> str:
        if package.arn == first:
            raise ValueError("Not a proper models:/ URI")
        return made(package)

    world.register = refuses  # type: ignore[method-assign]
    ((item, reason),) = repair(world, world.snapshot(), plan(world.snapshot()))
    assert (item.act, item.subject, reason) == (
        "register",
        first,
        "ValueError: Not a proper models:/ URI",
    )
    assert [v.model_package_arn for v in world.versions()] == [second]
    world.decide(first, "Rejected", "")  # how whoever made it says that it is nothing
    assert plan(world.snapshot()) == []


def test_what_counts_on_a_repair_that_failed_waits_for_the_next_reconciliation() -> None:
    world = World()
    number = linked(world)
    # a wish, in MLflow, that must not be lost
    world.v[number] = replace(world.v[number], approval="Approved")

    def refuses(arn: str, approval: str, why: str) -> None:
        raise ConnectionError("SageMaker is away")

    decide, world.decide = world.decide, refuses  # type: ignore[method-assign]
    wanted = plan(world.snapshot())
    failed = repair(world, world.snapshot(), wanted)
    assert [item.act for item, _ in failed] == ["approve", "set-tag", "roll-out"]
    assert "SageMaker is away" in failed[0][1]
    assert plan(world.snapshot()) == wanted, "nothing was half done"
    world.decide = decide  # type: ignore[method-assign]
    assert repair(world, world.snapshot(), plan(world.snapshot())) == []
    assert world.p[world.v[number].model_package_arn].approval == "Approved"


def test_a_version_that_was_deleted_since_the_snapshot_is_left_alone() -> None:
    world = World()
    gone = Repair(act="move-alias", subject="m/9", why="it runs on the fleet")
    assert repair(world, world.snapshot(), [gone]) == []
