"""What rollouts need from outside: storage, jobs, heartbeats, a signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from edge.protocol.signed import SignedManifest
from registry.rollout.model import Answer, DeviceState, FleetRecord, Rollout


class RolloutStore(Protocol):
    """Where rollouts are stored."""

    def current(self, fleet: str) -> FleetRecord:
        """The fleet's record; a fresh one for a fleet that has none."""

    def replace(self, before: FleetRecord, after: FleetRecord) -> bool:
        """Compare and swap: write ``after`` if the stored record is still ``before``."""

    def get(self, fleet: str, number: int) -> Rollout | None:
        """A rollout."""

    def create(self, rollout: Rollout) -> bool:
        """Write a new rollout; False when its number is taken."""

    def put(self, rollout: Rollout) -> None:
        """Overwrite a rollout."""


class RolloutJobs(Protocol):
    """AWS IoT Jobs."""

    def create(self, job: str, devices: Sequence[str], document: SignedManifest) -> None:
        """Create the job (idempotent). Raises RegistryError when another job has its id, that is,
        one with other devices or another manifest.
        """

    def executions(self, job: str) -> Mapping[str, Answer]:
        """Answers by device; empty for a job that does not exist."""

    def cancel(self, job: str) -> None:
        """Cancel a job with all its open executions (idempotent)."""


class FleetStatus(Protocol):
    """The devices that have ever sent a heartbeat."""

    def devices(self, fleet: str) -> Mapping[str, DeviceState]:
        """By device name."""


ObjectUrl = Callable[[str], str]
"""Placeholder of an S3 object's presigned URL in a job document, by key."""
OnEnd = Callable[[Rollout], None]
"""Called before a rollout is stored as ended, so that a crash cannot lose the call. It must be
idempotent.
"""
Unwanted = Callable[[Rollout], str]
"""Why a rollout's version must not reach more devices, such as a rejection; empty when it may."""
