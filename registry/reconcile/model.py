"""A snapshot of both registries and the fleets, and repairs as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from registry.model_version import Package, Version

Act = Literal[
    "register",
    "name",
    "give-evidence",
    "sign",
    "set-tag",
    "approve",
    "reject",
    "move-alias",
    "drop-alias",
    "roll-out",
    "catch-up",
]


class Repair(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to do, and why."""

    act: Act
    subject: str
    """A version as NAME/NUMBER, a package's ARN, or for ``drop-alias`` a model's name."""
    why: str
    value: str = ""
    """What the act needs: a package's ARN, an approval, or devices separated by commas."""


class FleetState(msgspec.Struct, frozen=True, kw_only=True):
    """What the fleet of a model runs."""

    runs: str = ""
    """A version's number; empty: no version."""
    busy: bool = False
    """A rollout is under way."""
    stale: tuple[str, ...] = ()
    """Devices without the fleet's model, see :mod:`registry.rollout.stale_devices`."""


@dataclass(frozen=True, kw_only=True)
class RegistrySnapshot:
    """Both registries and the fleets at one time."""

    versions: Sequence[Version]
    packages: Sequence[Package]
    fleets: Mapping[str, FleetState]
    """By the name of the model that a fleet runs, or is getting."""


class Actions(Protocol):
    """Port: what repairs do. Every method is idempotent."""

    def register(self, package: Package) -> str:
        """Link a package: its MLflow version, both names, the evidence. Returns the number."""

    def name(self, package: Package, version: Version) -> None:
        """Write the version's name into the package, and the package's origin into the version."""

    def give_evidence(self, package: Package, number: str) -> None:
        """Collect and publish a version's evidence, or tag the version with why there is none."""

    def sign(self, package: Package, number: str) -> None:
        """Have the link step sign the version's record."""

    def set_approval_tag(self, version: Version, approval: str) -> None:
        """Set the version's approval, and that both registries agree on it."""

    def decide(self, arn: str, approval: Literal["Approved", "Rejected"], why: str) -> None:
        """Set a package's approval."""

    def set_champion(self, name: str, number: str) -> None:
        """Move the alias ``champion``."""

    def drop_champion(self, name: str) -> None:
        """Remove the alias."""

    def update_stale_devices(self, name: str, devices: Sequence[str]) -> None:
        """Give stale devices the version that the fleet of a model runs."""

    def roll_out(self, version: Version, why: str) -> None:
        """Begin or queue a rollout; nothing where none is possible."""
