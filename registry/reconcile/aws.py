"""Reads the snapshot from AWS and MLflow, and implements the actions there."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from edge.training.app_bundle import AppError
from fl_runtime.run.errors import ObjectMissing
from registry.audit import SYSTEM, AuditTrail
from registry.errors import RegistryError
from registry.link_function import LinkFunction
from registry.linking import Linking
from registry.mlflow_registry import MlflowRegistry
from registry.model_version import (
    APPROVAL_TAG,
    CHECKS_TAG,
    SYNCED_TAG,
    TAG_LIMIT,
    Package,
    Version,
    VersionName,
    origin_tags,
)
from registry.reconcile.model import FleetState, RegistrySnapshot
from registry.rollout.aws import DynamoStore
from registry.rollout.model import TERMINAL_STATES, FleetRecord
from registry.rollout.service import RolloutService
from registry.rollout.stale_devices import StaleDevices
from registry.sagemaker_registry import SageMakerRegistry

IN_MLFLOW = "(in MLflow)"
"""Who decided, when MLflow's tags or alias say it."""


def read_snapshot(
    mlflow: MlflowRegistry,
    sagemaker: SageMakerRegistry,
    store: DynamoStore,
    records: Iterable[FleetRecord],
    stale_devices: StaleDevices,
) -> RegistrySnapshot:
    """Read both registries and the fleets: one call for each package, few for all the rest."""
    fleets: dict[str, FleetState] = {}
    for record in records:
        rollout = store.get(record.fleet, record.under_way) if record.under_way else None
        busy = rollout is not None and rollout.state not in TERMINAL_STATES
        if record.candidate is not None:
            name = VersionName.parse(record.candidate.model_version)
            stale = () if busy else tuple(stale_devices.find(record.fleet))
            fleets[name.model] = FleetState(runs=name.number, busy=busy, stale=stale)
        if rollout is not None and busy:
            coming = VersionName.parse(rollout.model_version)
            fleets.setdefault(coming.model, FleetState(busy=True))
    return RegistrySnapshot(
        versions=mlflow.versions(), packages=sagemaker.packages(), fleets=fleets
    )


class AwsActions:
    """:class:`~registry.reconcile.model.Actions` on SageMaker, MLflow and the rollouts."""

    def __init__(
        self,
        mlflow: MlflowRegistry,
        sagemaker: SageMakerRegistry,
        linking: Linking,
        link_function: LinkFunction,
        rollouts: RolloutService,
        fleets: Iterable[FleetRecord],
        stale_devices: StaleDevices,
        audit: AuditTrail,
        clock: Callable[[], float],
    ) -> None:
        self._mlflow = mlflow
        self._sagemaker = sagemaker
        self._linking = linking
        self._link_function = link_function
        self._rollouts = rollouts
        self._fleet_of = {
            VersionName.parse(record.candidate.model_version).model: record.fleet
            for record in fleets
            if record.candidate is not None
        }
        self._stale_devices = stale_devices
        self._audit = audit
        self._clock = clock
        self.jobs: dict[str, list[str]] = {}
        """Jobs of stale devices that were updated, by fleet."""

    def register(self, package: Package) -> str:
        """As the Link step does."""
        number = self._linking.link(package)
        self.give_evidence(package, number)
        self.sign(package, number)
        return number

    def give_evidence(self, package: Package, number: str) -> None:
        """As the Link step does. Evidence that cannot be collected would be missing for ever: the
        tag then says why.
        """
        try:
            self._linking.give_evidence(package, number)
        except (ObjectMissing, AppError, msgspec.DecodeError, LookupError, ValueError) as error:
            why = f"no evidence: {type(error).__name__}: {error}"[:TAG_LIMIT]
            self._mlflow.set_tags(package.group, number, {CHECKS_TAG: why})

    def sign(self, package: Package, number: str) -> None:
        """By the link function: nobody else may use the key."""
        self._link_function.sign(package.arn)

    def name(self, package: Package, version: Version) -> None:
        """Write the version's name into the package, and the package's origin into the version."""
        self._sagemaker.set_version(package.arn, VersionName(version.name, version.version))
        self._mlflow.set_tags(version.name, version.version, origin_tags(package))

    def set_approval_tag(self, version: Version, approval: str) -> None:
        """The agreement comes last: after a crash between the two the difference is still seen."""
        tags = {APPROVAL_TAG: approval, SYNCED_TAG: approval}
        self._mlflow.set_tags(version.name, version.version, tags)

    def decide(self, arn: str, approval: Literal["Approved", "Rejected"], why: str) -> None:
        """Set the approval in SageMaker, whose event does the rest."""
        what = "approve" if approval == "Approved" else "reject"
        user = getpass.getuser()
        self._audit.append(
            at=self._clock(), who=IN_MLFLOW, what=what, subject=arn, why=why, user=user
        )
        self._sagemaker.set_approval(arn, approval, f"{IN_MLFLOW}: {why}")

    def set_champion(self, name: str, number: str) -> None:
        """Move the alias."""
        self._mlflow.set_champion(name, number)

    def drop_champion(self, name: str) -> None:
        """Remove the alias."""
        self._mlflow.drop_champion(name)

    def update_stale_devices(self, name: str, devices: Sequence[str]) -> None:
        """One job for each device, in the fleet that runs the model."""
        fleet = self._fleet_of[name]
        self.jobs.setdefault(fleet, []).extend(self._stale_devices.update(fleet, devices))

    def roll_out(self, version: Version, why: str) -> None:
        """Nothing to do where the fleet runs the version already, or its approval event has begun
        the rollout.
        """
        try:
            self._rollouts.begin(version, by=SYSTEM, reason=why)
        except RegistryError:
            return
