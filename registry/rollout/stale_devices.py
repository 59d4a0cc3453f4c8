"""Stale devices: online, but without the model that their fleet runs.

They enrolled after the last rollout, or were set up anew. A schedule and ``mledgeops reconcile``
update them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from edge.logs import event
from registry.audit import SYSTEM, AuditTrail
from registry.rollout.manifests import Manifests
from registry.rollout.model import SUCCEEDED, WAITING, FleetRecord
from registry.rollout.ports import FleetStatus, RolloutStore
from registry.rollout.waves import WaveJobs

logger = logging.getLogger(__name__)


class StaleDevices:
    """Finds and updates stale devices."""

    def __init__(
        self,
        store: RolloutStore,
        jobs: WaveJobs,
        fleet: FleetStatus,
        manifests: Manifests,
        audit: AuditTrail,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._fleet = fleet
        self._manifests = manifests
        self._audit = audit
        self._clock = clock

    def find(self, fleet: str) -> list[str]:
        """The stale devices of a fleet by name; none while a rollout is under way."""
        current = self._store.current(fleet)
        if current.candidate is None or current.under_way:
            return []
        others = {
            device
            for device, state in self._fleet.devices(fleet).items()
            if state.online and state.model != current.candidate.model_version
        }
        return [
            device
            for device in sorted(others - self._refused(current))
            if not self._jobs.jobs.executions(self._job(current, device))
        ]

    def update(self, fleet: str, devices: Sequence[str] = ()) -> list[str]:
        """Tell devices to switch to their fleet's model, by one job each; returns the jobs' ids.

        ``devices``: default all stale ones. They compare the model with theirs first, as in any
        rollout.
        """
        stale = list(devices) or self.find(fleet)
        current = self._store.current(fleet)
        last = self._store.get(fleet, current.number)
        if not stale or current.candidate is None or current.under_way or last is None:
            return []
        jobs = [self._job(current, device) for device in stale]
        for job, device in zip(jobs, stale, strict=True):
            # The last number taken is above that of every manifest that the fleet has followed, and
            # below that of the next rollout.
            document = self._manifests.update(current.candidate, last, current.sequence)
            self._jobs.jobs.create(job, [device], document)
        version = current.candidate.model_version
        event(logger, "catch-up", fleet=fleet, version=version, devices=len(stale))
        self._audit.append(
            at=self._clock(),
            who=SYSTEM,
            what="catch-up",
            subject=version,
            why="enrolled later",
            fleet=fleet,
            devices=stale,
            jobs=jobs,
        )
        return jobs

    def is_waiting(self, job: str) -> bool:
        """Whether a device has not answered its job yet."""
        return any(answer.status in WAITING for answer in self._jobs.jobs.executions(job).values())

    def _refused(self, current: FleetRecord) -> set[str]:
        """Devices of the last rollout that refused its model, or still have its job to do."""
        last = self._store.get(current.fleet, current.number)
        if last is None or last.state != "Succeeded":
            return set()
        return {
            device
            for wave in last.waves
            for device, answer in self._jobs.answers(wave).items()
            if answer.status != SUCCEEDED
        }

    def _job(self, current: FleetRecord, device: str) -> str:
        return self._jobs.ids.stale_device(current.fleet, current.number, device)
