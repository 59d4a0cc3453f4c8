"""Executes repairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from registry.model_version import Package, Version, VersionName
from registry.reconcile.model import Actions, RegistrySnapshot, Repair

_REASON_LIMIT = 500


def repair(
    actions: Actions, snapshot: RegistrySnapshot, repairs: Sequence[Repair]
) -> list[tuple[Repair, str]]:
    """Execute repairs; returns those that could not be done, with the reason.

    After a failure the other repairs of the same version are skipped, since they depend on each
    other; those of other versions are not. Every repair is idempotent: the next reconciliation
    completes what a crash has interrupted.
    """
    versions = {version.model_version: version for version in snapshot.versions}
    packages = {package.arn: package for package in snapshot.packages}
    failed: dict[str, tuple[Repair, str]] = {}
    skipped = []
    for item in repairs:
        if item.subject in failed:
            why = "left for the next reconciliation: a repair before it could not be done"
            skipped.append((item, why))
            continue
        try:
            _execute(actions, item, versions.get(item.subject), packages)
        except Exception as error:  # noqa: BLE001  # both registries raise their backends' errors
            failed[item.subject] = (item, f"{type(error).__name__}: {error}"[:_REASON_LIMIT])
    return [*failed.values(), *skipped]


def _execute(
    actions: Actions, item: Repair, version: Version | None, packages: Mapping[str, Package]
) -> None:
    match item.act:
        case "register":
            actions.register(packages[item.subject])
        case "approve":
            actions.decide(item.value, "Approved", item.why)
        case "reject":
            actions.decide(item.value, "Rejected", item.why)
        case "drop-alias":
            actions.drop_champion(item.subject)
        case "catch-up":
            model = VersionName.parse(item.subject).model
            actions.update_stale_devices(model, item.value.split(","))
        case _ if version is not None:
            _execute_on(actions, item, version, packages)


def _execute_on(
    actions: Actions, item: Repair, version: Version, packages: Mapping[str, Package]
) -> None:
    match item.act:
        case "name":
            actions.name(packages[item.value], version)
        case "give-evidence":
            actions.give_evidence(packages[item.value], version.version)
        case "sign":
            actions.sign(packages[item.value], version.version)
        case "set-tag":
            actions.set_approval_tag(version, item.value)
        case "move-alias":
            actions.set_champion(version.name, version.version)
        case "roll-out":
            actions.roll_out(version, item.why)
