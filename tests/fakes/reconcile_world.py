"""Both registries and a fleet in memory, and anything that people may do to them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from registry.model_version import (
    HELD,
    MLFLOW_NAME,
    MLFLOW_VERSION,
    RECORD_TAG,
    RUN_TAG,
    Package,
    Version,
)
from registry.reconcile.model import FleetState, RegistrySnapshot
from registry.reconcile.plan import DELETED, plan
from registry.reconcile.repair import repair


class World:
    """Both registries and the fleet, in memory. Rollouts end well when :meth:`settle` is called,
    unless the devices refuse.
    """

    def __init__(self) -> None:
        self.v: dict[str, Version] = {}
        self.p: dict[str, Package] = {}
        self.runs, self.under_way, self.number = "", "", 0
        self.refused: set[str] = set()
        self.late: set[str] = set()
        self.held: set[str] = set()

    def versions(self) -> list[Version]:
        return list(self.v.values())

    def packages(self) -> list[Package]:
        return list(self.p.values())

    def fleets(self) -> dict[str, FleetState]:
        return {
            "m": FleetState(
                runs=self.runs,
                busy=bool(self.under_way),
                stale=tuple(sorted(self.late)) if self.runs else (),
            )
        }

    def snapshot(self) -> RegistrySnapshot:
        return RegistrySnapshot(
            versions=self.versions(), packages=self.packages(), fleets=self.fleets()
        )

    def create(self) -> None:
        arn = f"arn:{len(self.p) + 100 * self.number}"
        self.number += 1
        self.p[arn] = Package(
            arn=arn,
            group="m",
            version=1,
            approval="PendingManualApproval",
            metadata={RUN_TAG: "run-1"},
            model_data="",
        )

    def register(self, package: Package) -> str:
        self.link(package.arn, 3)
        return next(v.version for v in self.v.values() if v.model_package_arn == package.arn)

    def version_of(self, package: Package) -> str:
        there = next(
            (v.version for v in self.v.values() if v.model_package_arn == package.arn), None
        )
        if there:
            return there
        self.number += 1
        number = str(self.number)
        self.v[number] = Version(
            name="m",
            version=number,
            run="run-1",
            mlflow_run_id="r",
            model_package_arn=package.arn,
            approval="PendingManualApproval",
            score=1.0,
            model_digest="d",
            champion=False,
            created_at=0.0,
        )
        return number

    def name(self, package: Package, version: Version) -> None:
        names = {MLFLOW_NAME: version.name, MLFLOW_VERSION: version.version}
        self.p[package.arn] = replace(
            self.p[package.arn], metadata={**self.p[package.arn].metadata, **names}
        )
        self.v[version.version] = replace(
            self.v[version.version], run=package.metadata[RUN_TAG], model_package_arn=package.arn
        )

    def link_at_once(self, arn: str) -> None:
        """Two that link a package, of which neither sees the other."""
        self.link(arn, 3)
        first = next(v for v in self.v.values() if v.model_package_arn == arn)
        self.number += 1
        self.v[str(self.number)] = replace(
            first, version=str(self.number), checks="", champion=False
        )

    def give_evidence(self, package: Package, number: str) -> None:
        self.v[number] = replace(self.v[number], checks="passed")

    def sign(self, package: Package, number: str) -> None:
        signed = {**self.p[package.arn].metadata, RECORD_TAG: "s3://b/record"}
        self.p[package.arn] = replace(self.p[package.arn], metadata=signed)

    def set_approval_tag(self, version: Version, approval: str) -> None:
        self.v[version.version] = replace(
            self.v[version.version], approval=approval, synced=approval
        )

    def update_stale_devices(self, name: str, devices: list[str]) -> None:
        self.late -= set(devices)

    def decide(self, arn: str, approval: str, why: str) -> None:
        if arn in self.p:
            self.p[arn] = replace(self.p[arn], approval=approval)

    def set_champion(self, name: str, number: str) -> None:
        self.v = {n: replace(v, champion=n == number) for n, v in self.v.items()}

    def drop_champion(self, name: str) -> None:
        self.v = {n: replace(v, champion=False) for n, v in self.v.items()}

    def roll_out(self, version: Version, why: str) -> None:
        if version.version in self.held:
            self.v[version.version] = replace(self.v[version.version], rollout_state=HELD)
        elif not self.under_way:
            self.under_way = version.version

    def settle(self) -> None:
        """The rollout under way ends."""
        number, self.under_way = self.under_way, ""
        if number not in self.v:
            return
        if number in self.refused:
            self.v[number] = replace(self.v[number], rollout_state="RolledBack")
        else:
            self.v[number] = replace(self.v[number], rollout_state="Succeeded")
            self.runs = number
            self.set_champion("m", number)

    def link(self, arn: str, steps: int) -> None:
        """As the link function does, interrupted after so many steps."""
        if steps >= 1:
            number = self.version_of(self.p[arn])
            if steps >= 2:
                self.name(self.p[arn], self.v[number])
            if steps >= 3:
                self.give_evidence(self.p[arn], number)
                self.sign(self.p[arn], number)


def consistent(world: World) -> None:
    """What anybody may rely on."""
    by_arn = {v.model_package_arn: v for v in reversed(world.v.values())}
    assert not (world.late and world.runs), "devices that came later were given the model"
    for package in world.p.values():
        version = by_arn.get(package.arn)
        if version is None:
            assert package.approval == "Rejected", "a package whose version was deleted"
        else:
            assert package.metadata[MLFLOW_VERSION] == version.version
            assert version.approval == version.synced == package.approval
            assert RECORD_TAG in package.metadata or package.approval == "Rejected"
            assert version.run == package.metadata[RUN_TAG], "it leads to where it comes from"
            assert version.checks or package.approval == "Rejected", (
                "who approves has evidence to judge by"
            )
    for version in world.v.values():
        if not version.model_package_arn:
            continue  # it says no longer that it is ours
        if (
            version.model_package_arn not in world.p
            or by_arn[version.model_package_arn] is not version
        ):
            assert version.approval == DELETED
        if version.champion:
            assert version.version == world.runs, "the champion is what the fleet runs"


def linked(world: World) -> str:
    world.create()
    arn = sorted(world.p)[-1]
    world.link(arn, 3)
    return next(v.version for v in world.v.values() if v.model_package_arn == arn)


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "create",
                "link",
                "link-at-once",
                "relabel",
                "mislead",
                "approve",
                "reject",
                "tag",
                "alias",
                "drop",
                "delete-package",
                "delete-version",
                "settle",
                "refuse",
                "reconcile",
                "arrive",
                "hold",
            ]
        ),
        st.integers(0, 5),
        st.integers(0, 3),
    ),
    max_size=25,
)


def live_through(operations: list[tuple[str, int, int]], crash_at: int) -> None:
    """Any history, then a reconciliation that crashes, then ones that do not: all must agree."""
    world = World()
    for operation, which, how in operations:
        arns, numbers = sorted(world.p), sorted(world.v)
        arn, number = (
            arns[which % len(arns)] if arns else "",
            numbers[which % len(numbers)] if numbers else "",
        )
        done: dict[str, Any] = {
            "create": world.create,
            "link": lambda a=arn, h=how: a and world.link(a, h),
            "relabel": lambda n=number: (
                n and world.v.update({n: replace(world.v[n], run="another")})
            ),
            "mislead": lambda n=number, a=arn, h=how: (
                n
                and world.v.update(
                    {n: replace(world.v[n], model_package_arn=(a, "", "arn:no", "")[h])}
                )
            ),
            "link-at-once": lambda a=arn: a and world.link_at_once(a),
            "approve": lambda a=arn: (
                a and world.p[a].approval != "Rejected" and world.decide(a, "Approved", "")
            ),
            "reject": lambda a=arn: a and world.decide(a, "Rejected", ""),
            "tag": lambda n=number, h=how: (
                n
                and world.v.update(
                    {n: replace(world.v[n], approval=("Approved", "Rejected", "nonsense")[h % 3])}
                )
            ),
            "alias": lambda n=number: n and world.set_champion("m", n),
            "drop": lambda: world.drop_champion("m"),
            "delete-package": lambda a=arn: world.p.pop(a, None),
            "delete-version": lambda n=number: world.v.pop(n, None),
            "settle": world.settle,
            "refuse": lambda n=number: world.refused.add(n),
            "reconcile": lambda: repair(world, world.snapshot(), plan(world.snapshot())[:crash_at]),
            "hold": lambda n=number: world.held.add(n),
            "arrive": lambda w=which: world.late.add(f"d{w}"),
        }
        done[operation]()
    if world.runs not in world.v:
        world.runs = ""  # its version was deleted: the fleet has nothing that a registry knows
    repair(world, world.snapshot(), plan(world.snapshot())[:crash_at])  # one that crashed
    for _ in range(12):  # and then ones that did not, until the rollouts that they began have ended
        repair(world, world.snapshot(), plan(world.snapshot()))
        if world.under_way:
            world.settle()
    assert plan(world.snapshot()) == [], "a further one finds nothing"
    consistent(world)
