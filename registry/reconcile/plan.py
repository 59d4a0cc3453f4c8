"""Derives the repairs from a snapshot of both registries and the fleets.

Level-triggered: it needs no events and no history. One tag, the approval that both registries last
agreed on, tells which side has changed. A rejection is final wherever it was made. A deletion in
one registry becomes a rejection in the other, never a deletion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from registry.model_version import (
    HELD,
    PENDING,
    RECORD_TAG,
    RUN_TAG,
    Package,
    Version,
    VersionName,
    has_origin_of,
)
from registry.reconcile.model import FleetState, RegistrySnapshot, Repair

DELETED = "Deleted"
"""Approval tag of a version whose package is gone."""
_NOT_ALLOWED = ("RolledBack", HELD)
"""How a version's last rollout ended when the version may not become champion."""
_MIRROR = re.compile(r"-[0-9a-f]{6}$")
"""End of a package group's name when managed MLflow has made the group.

https://docs.aws.amazon.com/sagemaker/latest/dg/mlflow-track-experiments-model-registration.html
"""


def plan(snapshot: RegistrySnapshot) -> list[Repair]:
    """The repairs in the order in which to do them; none when all agrees."""
    versions, packages = snapshot.versions, snapshot.packages
    by_arn = {package.arn: package for package in packages}
    linked = link(versions, packages)
    package_of = {v.model_version: by_arn.get(arn) for arn, v in linked.items()}
    repairs: list[Repair] = []
    for package in packages:
        if package.metadata.get(RUN_TAG):
            repairs += _package(package, linked.get(package.arn))
    for version in versions:
        if version.model_package_arn or version.model_version in package_of:
            fleet = snapshot.fleets.get(version.name, FleetState())
            repairs += _version(version, package_of.get(version.model_version), fleet)
    for name in sorted({version.name for version in versions}):
        fleet = snapshot.fleets.get(name, FleetState())
        repairs += _alias(name, [v for v in versions if v.name == name], package_of, fleet)
        repairs += _stale_devices(name, fleet)
    return repairs


def link(versions: Sequence[Version], packages: Sequence[Package]) -> dict[str, Version]:
    """The version of each package, by the package's ARN.

    The version names its package. If none does, its tag may have been edited: then it is the
    version that the package names, provided both come from the same run. If two versions name one
    package, a Link step ran twice at the same time, and the older version counts.
    """
    run_of = {v.model_version: v.run for v in versions}
    named = {v.model_package_arn for v in versions}
    claimed = {
        package.model_version: package.arn
        for package in packages
        if package.arn not in named
        and package.metadata.get(RUN_TAG)
        and run_of.get(package.model_version) == package.metadata[RUN_TAG]
    }
    newest_first = sorted(versions, key=lambda v: -int(v.version))
    return {
        arn: v for v in newest_first if (arn := claimed.get(v.model_version, v.model_package_arn))
    }


def mirrors(snapshot: RegistrySnapshot) -> list[Package]:
    """Packages that managed MLflow's own synchronisation made of our versions. They are left
    alone.
    """
    names = {version.name for version in snapshot.versions}
    return [
        package
        for package in snapshot.packages
        if not package.metadata.get(RUN_TAG)
        and _MIRROR.search(package.group)
        and _MIRROR.sub("", package.group) in names
    ]


def _package(package: Package, version: Version | None) -> Iterator[Repair]:
    if version is None:
        yield from _unlinked(package)
        return
    subject = version.model_version
    if package.model_version != subject:
        why = "the package does not name its MLflow version"
        yield Repair(act="name", subject=subject, value=package.arn, why=why)
    elif not has_origin_of(version, package):
        why = "the version's tags of its origin differ from its package"
        yield Repair(act="name", subject=subject, value=package.arn, why=why)
    if not version.checks and package.approval != "Rejected":
        why = "the version has no evidence: its link was interrupted"
        yield Repair(act="give-evidence", subject=subject, value=package.arn, why=why)
    if RECORD_TAG not in package.metadata and package.approval != "Rejected":
        why = "the version has no signed record: 0.4 linked it, or its link was interrupted"
        yield Repair(act="sign", subject=subject, value=package.arn, why=why)


def _unlinked(package: Package) -> Iterator[Repair]:
    if package.approval == "Rejected":
        return
    if package.model_version:
        why = "its version was deleted in MLflow"
        yield Repair(act="reject", subject=package.model_version, value=package.arn, why=why)
    else:
        why = "the package has no MLflow version: its link was interrupted"
        yield Repair(act="register", subject=package.arn, why=why)


def _version(version: Version, package: Package | None, fleet: FleetState) -> Iterator[Repair]:
    if package is None:
        if (version.approval, version.synced) != (DELETED, DELETED):
            why = "its package was deleted in SageMaker, or belongs to another version"
            yield Repair(act="set-tag", subject=version.model_version, value=DELETED, why=why)
    elif package.approval == "Rejected" or package.approval != version.synced:
        yield from _follow_sagemaker(version, package, fleet)
    elif version.approval != version.synced:
        yield from _follow_mlflow(version, package, fleet)


def _follow_sagemaker(version: Version, package: Package, fleet: FleetState) -> Iterator[Repair]:
    subject, approval = version.model_version, package.approval
    if (version.approval, version.synced) != (approval, approval):
        why = f"SageMaker says {approval}"
        yield Repair(act="set-tag", subject=subject, value=approval, why=why)
    if approval == "Approved" and not _was_rolled_out(version, fleet):
        why = "it was approved in SageMaker, and never went to the fleet"
        yield Repair(act="roll-out", subject=subject, why=why)


def _follow_mlflow(version: Version, package: Package, fleet: FleetState) -> Iterator[Repair]:
    """The tag decides what SageMaker has not decided, and it may reject at any time."""
    subject, said = version.model_version, f"MLflow's tag says {version.approval}"
    if version.approval == "Rejected":
        yield Repair(act="reject", subject=subject, value=package.arn, why=said)
        yield Repair(act="set-tag", subject=subject, value="Rejected", why="SageMaker follows")
    elif version.approval == "Approved" and package.approval == PENDING:
        yield Repair(act="approve", subject=subject, value=package.arn, why=said)
        yield Repair(act="set-tag", subject=subject, value="Approved", why="SageMaker follows")
        if not _was_rolled_out(version, fleet):
            yield Repair(act="roll-out", subject=subject, why="it was approved in MLflow")
    else:
        why = f"MLflow's tag says {version.approval!r}, which decides nothing"
        yield Repair(act="set-tag", subject=subject, value=package.approval, why=why)


def _was_rolled_out(version: Version, fleet: FleetState) -> bool:
    return bool(version.rollout_state) or fleet.busy or fleet.runs == version.version


def _alias(
    name: str,
    versions: Sequence[Version],
    packages: Mapping[str, Package | None],
    fleet: FleetState,
) -> Iterator[Repair]:
    """The champion is what the fleet runs. An alias moved by hand is taken as a request for a
    rollout, and undone where the version may not go to the fleet.
    """
    if fleet.busy:
        return  # the rollout moves the alias when it ends
    champion = next((version for version in versions if version.champion), None)
    running = str(VersionName(name, fleet.runs))
    known = any(version.version == fleet.runs for version in versions)
    if champion is None:
        if known:
            why = "it runs on the fleet, and no version is champion"
            yield Repair(act="move-alias", subject=running, why=why)
    elif champion.version != fleet.runs:
        package = packages.get(champion.model_version)
        moved = list(_follow_alias(champion, package, fleet))
        if moved or _may_follow(champion, package):
            yield from moved
            return
        why = f"the alias was on {champion.model_version}, which may not be champion"
        if known:
            yield Repair(act="move-alias", subject=running, why=why)
        else:
            yield Repair(act="drop-alias", subject=name, why=why)


def _may_follow(champion: Version, package: Package | None) -> bool:
    return (
        package is not None
        and package.approval == "Approved"
        and champion.rollout_state not in _NOT_ALLOWED
    )


def _follow_alias(
    champion: Version, package: Package | None, fleet: FleetState
) -> Iterator[Repair]:
    """The repairs that send a version to the fleet because somebody gave it the alias."""
    subject, why = champion.model_version, "MLflow's alias champion was given to it"
    undecided = champion.approval == champion.synced
    if package is not None and package.approval == PENDING and undecided:
        yield Repair(act="approve", subject=subject, value=package.arn, why=why)
        yield Repair(act="set-tag", subject=subject, value="Approved", why="SageMaker follows")
        if not _was_rolled_out(champion, fleet):
            yield Repair(act="roll-out", subject=subject, why="it was approved in MLflow")
    elif _may_follow(champion, package) and champion.synced == "Approved":
        # Otherwise the approval itself is still to be acted on, and begins the rollout.
        yield Repair(act="roll-out", subject=subject, why=why)


def _stale_devices(name: str, fleet: FleetState) -> Iterator[Repair]:
    if fleet.stale and not fleet.busy:
        yield Repair(
            act="catch-up",
            subject=str(VersionName(name, fleet.runs)),
            value=",".join(fleet.stale),
            why=f"{len(fleet.stale)} devices do not run it yet: they came after its rollout",
        )
