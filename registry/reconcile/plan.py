"""Makes both registries, and the fleet, say the same again: looks at what is, says what is to be
done, does it.

Level-triggered: it needs no event and no history. Who changed is known by one tag, the approval
that both sides last agreed
on. A rejection stands, wherever it was made; a deletion on one side is a rejection on the other,
never a deletion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from registry.mlflow_registry import RUN_TAG, Version, says_origin
from registry.sagemaker_registry import PENDING, Package

DELETED = "Deleted"
DECIDED = ("Approved", "Rejected")


MIRROR = re.compile(r"-[0-9a-f]{6}$")
"""How managed MLflow ends the name of a group that it synchronises a registered model into.

https://docs.aws.amazon.com/sagemaker/latest/dg/mlflow-track-experiments-model-registration.html
"""


class Repair(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to do, and why."""

    act: Literal[
        "register",
        "name",
        "give-evidence",
        "set-tag",
        "approve",
        "reject",
        "move-alias",
        "drop-alias",
        "roll-out",
        "catch-up",
    ]
    subject: str
    """A version as NAME/NUMBER, or a package's ARN."""
    why: str
    value: str = ""


class FleetState(msgspec.Struct, frozen=True, kw_only=True):
    """What the fleet of a model runs: a version's number, and whether a rollout is under way."""

    runs: str = ""
    busy: bool = False
    behind: tuple[str, ...] = ()
    """Devices that came after the last rollout."""


class Both(Protocol):
    """Port: both registries and the fleets."""

    def versions(self) -> Sequence[Version]:
        """MLflow's versions."""

    def packages(self) -> Sequence[Package]:
        """SageMaker's packages."""

    def fleets(self) -> Mapping[str, FleetState]:
        """By model name."""

    def register(self, package: Package) -> str:
        """Make the MLflow version of a package, with its name and its evidence; the number of the
        one that is there already.
        """

    def name(self, package: Package, version: Version) -> None:
        """Write the version's name into the package, and the package's origin into the version."""

    def give_evidence(self, package: Package, number: str) -> None:
        """Collect and publish a version's evidence, or write down that there is none."""

    def set_approval_tag(self, version: Version, approval: str) -> None:
        """Both tags: the approval, and what both agreed on."""

    def decide(self, arn: str, approval: Literal["Approved", "Rejected"], why: str) -> None:
        """Set SageMaker's approval."""

    def set_champion(self, name: str, number: str) -> None:
        """Move the alias."""

    def drop_champion(self, name: str) -> None:
        """Remove the alias."""

    def catch_up(self, name: str, devices: Sequence[str]) -> None:
        """Give devices that came later the model that their fleet uses."""

    def roll_out(self, version: Version, why: str) -> None:
        """Begin a rollout."""


def plan(both: Both) -> list[Repair]:
    """What has to be done; nothing when all is well."""
    versions, packages, fleets = both.versions(), both.packages(), both.fleets()
    by_arn = {package.arn: package for package in packages}
    linked = _links(versions, packages)
    package_of = {v.model_version: by_arn.get(arn) for arn, v in linked.items()}
    repairs: list[Repair] = []
    for package in packages:
        if package.metadata.get(RUN_TAG):
            repairs += _package(package, linked.get(package.arn))
    for version in versions:
        if version.model_package_arn or version.model_version in package_of:
            fleet = fleets.get(version.name, FleetState())
            repairs += _version(version, package_of.get(version.model_version), fleet)
    for name in sorted({version.name for version in versions}):
        champion = next((v for v in versions if v.name == name and v.champion), None)
        of_name = {v.version: v for v in versions if v.name == name}
        fleet = fleets.get(name, FleetState())
        repairs += _alias(name, champion, of_name, package_of, fleet)
        if fleet.behind and not fleet.busy:
            why = f"{len(fleet.behind)} devices came after it had gone to the fleet"
            repairs.append(
                Repair(
                    act="catch-up",
                    subject=f"{name}/{fleet.runs}",
                    value=",".join(fleet.behind),
                    why=why,
                )
            )
    return repairs


def _links(versions: Sequence[Version], packages: Sequence[Package]) -> dict[str, Version]:
    """Which version belongs to a package, by its ARN.

    The version says it. Where none says it, somebody may have written into the tag: then the one
    that the package names, if it comes from
    the same run. Of two that say it, made by a step and its repetition at once, the first counts.
    """
    run_of, said = (
        {v.model_version: v.run for v in versions},
        {v.model_package_arn for v in versions},
    )
    unsaid = [
        package for package in packages if package.arn not in said and package.metadata.get(RUN_TAG)
    ]
    claimed = {
        package.model_version: package.arn
        for package in unsaid
        if run_of.get(package.model_version) == package.metadata[RUN_TAG]
    }
    last_first = sorted(versions, key=lambda v: -int(v.version))
    return {
        arn: v for v in last_first if (arn := claimed.get(v.model_version, v.model_package_arn))
    }


def mirrors(versions: Sequence[Version], packages: Sequence[Package]) -> list[Package]:
    """Packages that managed MLflow's own synchronisation made of our versions: seen, and left
    alone. Ours decide.
    """
    names = {version.name for version in versions}
    return [
        p
        for p in packages
        if not p.metadata.get(RUN_TAG)
        and MIRROR.search(p.group)
        and MIRROR.sub("", p.group) in names
    ]


def repair(both: Both, repairs: Sequence[Repair]) -> list[tuple[Repair, str]]:
    """Do it; what could not be done, and why. Nothing more is done then for the same version, whose
    repairs count on each other; for others all is.

    Each repair may be done twice: a crash in the middle is mended by the next reconciliation.
    """
    versions = {v.model_version: v for v in both.versions()}
    packages = {package.arn: package for package in both.packages()}
    failed: dict[str, tuple[Repair, str]] = {}
    left = []
    for item in repairs:
        if item.subject in failed:
            left.append(
                (item, "left for the next reconciliation: a repair before it could not be done")
            )
            continue
        try:
            _do(both, item, versions.get(item.subject), packages)
        except Exception as error:  # noqa: BLE001  # both registries raise their backends' errors
            failed[item.subject] = (item, f"{type(error).__name__}: {error}"[:500])
    return [*failed.values(), *left]


def _do(both: Both, item: Repair, version: Version | None, packages: Mapping[str, Package]) -> None:
    if item.act == "register":
        both.register(packages[item.subject])
    elif item.act in ("approve", "reject"):
        both.decide(item.value, "Approved" if item.act == "approve" else "Rejected", item.why)
    elif item.act == "drop-alias":
        both.drop_champion(item.subject)
    elif item.act == "catch-up":
        both.catch_up(item.subject.partition("/")[0], item.value.split(","))
    elif version is None:
        return
    elif item.act == "name":
        both.name(packages[item.value], version)
    elif item.act == "give-evidence":
        both.give_evidence(packages[item.value], version.version)
    elif item.act == "set-tag":
        both.set_approval_tag(version, item.value)
    elif item.act == "move-alias":
        both.set_champion(version.name, version.version)
    else:
        both.roll_out(version, item.why)


def _package(package: Package, version: Version | None) -> Iterator[Repair]:
    if version is not None:
        subject = version.model_version
        if package.model_version != subject:
            yield Repair(
                act="name",
                subject=subject,
                value=package.arn,
                why="the package does not name its MLflow version",
            )
        elif not says_origin(version, package):
            yield Repair(
                act="name",
                subject=subject,
                value=package.arn,
                why="the version's tags of its origin are not as its package has them",
            )
        if not version.checks and package.approval != "Rejected":
            yield Repair(
                act="give-evidence",
                subject=subject,
                value=package.arn,
                why="the version has no evidence: its link was interrupted",
            )
    elif package.approval == "Rejected":
        return
    elif not package.model_version:
        yield Repair(
            act="register",
            subject=package.arn,
            why="the package has no MLflow version: its link was interrupted",
        )
    else:
        yield Repair(
            act="reject",
            subject=package.model_version,
            value=package.arn,
            why="its version was deleted in MLflow",
        )


def _version(version: Version, package: Package | None, fleet: FleetState) -> Iterator[Repair]:
    subject = version.model_version
    if package is None:
        if version.approval != DELETED or version.synced != DELETED:
            yield Repair(
                act="set-tag",
                subject=subject,
                value=DELETED,
                why="its package was deleted in SageMaker, or is another version's",
            )
        return
    if package.approval == "Rejected" or package.approval != version.synced:
        if (version.approval, version.synced) != (package.approval, package.approval):
            yield Repair(
                act="set-tag",
                subject=subject,
                value=package.approval,
                why=f"SageMaker says {package.approval}",
            )
        if package.approval == "Approved" and not _went_out(version, fleet):
            yield Repair(
                act="roll-out",
                subject=subject,
                why="it was approved in SageMaker, and never went to the fleet",
            )
    elif version.approval != version.synced:
        if version.approval in DECIDED and package.approval == PENDING:
            act: Literal["approve", "reject"] = (
                "approve" if version.approval == "Approved" else "reject"
            )
            yield Repair(
                act=act,
                subject=subject,
                value=package.arn,
                why=f"MLflow's tag says {version.approval}",
            )
            yield Repair(
                act="set-tag", subject=subject, value=version.approval, why="SageMaker follows"
            )
            if act == "approve" and not _went_out(version, fleet):
                yield Repair(act="roll-out", subject=subject, why="it was approved in MLflow")
        elif version.approval == "Rejected":
            yield Repair(
                act="reject", subject=subject, value=package.arn, why="MLflow's tag says Rejected"
            )
            yield Repair(act="set-tag", subject=subject, value="Rejected", why="SageMaker follows")
        else:
            yield Repair(
                act="set-tag",
                subject=subject,
                value=package.approval,
                why=f"MLflow's tag says {version.approval!r}, which decides nothing",
            )


def _went_out(version: Version, fleet: FleetState) -> bool:
    return bool(version.rollout) or fleet.busy or fleet.runs == version.version


def _alias(
    name: str,
    champion: Version | None,
    versions: Mapping[str, Version],
    packages: Mapping[str, Package | None],
    fleet: FleetState,
) -> Iterator[Repair]:
    """The champion is what the fleet runs. An alias that was moved by hand is a wish, and is
    followed where it may be.
    """
    if fleet.busy:
        return  # the rollout's end moves the alias
    if champion is None:
        if fleet.runs in versions:
            yield Repair(
                act="move-alias",
                subject=f"{name}/{fleet.runs}",
                why="it runs on the fleet, and no version is champion",
            )
        return
    if champion.version == fleet.runs:
        return
    subject = f"{name}/{champion.version}"
    package = packages.get(subject)
    if package is not None and package.approval == PENDING and champion.approval == champion.synced:
        yield Repair(
            act="approve",
            subject=subject,
            value=package.arn,
            why="MLflow's alias champion was given to it",
        )
        yield Repair(act="set-tag", subject=subject, value="Approved", why="SageMaker follows")
    elif (
        package is not None
        and package.approval == "Approved"
        and not champion.rollout.startswith(("RolledBack", "Held"))
    ):
        if champion.synced == "Approved":  # otherwise its approval begins the rollout
            yield Repair(
                act="roll-out", subject=subject, why="MLflow's alias champion was given to it"
            )
        return
    elif fleet.runs in versions:
        yield Repair(
            act="move-alias",
            subject=f"{name}/{fleet.runs}",
            why=f"the alias was on {subject}, which may not be champion",
        )
        return
    else:
        yield Repair(
            act="drop-alias",
            subject=name,
            why=f"the alias was on {subject}, which may not be champion",
        )
        return
    if not _went_out(champion, fleet):
        yield Repair(act="roll-out", subject=subject, why="it was approved in MLflow")
