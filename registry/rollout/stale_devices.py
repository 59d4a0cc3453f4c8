"""Stale devices: online, but without the model that their fleet runs.

They enrolled after the last rollout, were set up anew, or were away until their manifest had
expired. A schedule and ``mledgeops reconcile`` update them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from edge.logs import event
from registry.audit import SYSTEM, AuditTrail
from registry.rollout.manifests import Manifests, expires_at, period_of
from registry.rollout.model import FAILED, WAITING, Rollout, Wave
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
        last = self._store.get(fleet, current.number)
        if current.candidate is None or current.under_way or last is None:
            return []
        others = {
            device
            for device, state in self._fleet.devices(fleet).items()
            if state.online and state.model != current.candidate.model_version
        }
        return [
            device
            for device in sorted(others - self._refused(last))
            if not self._was_asked(last, device)
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
        jobs = [self._jobs_of(last, device)[-1] for device in stale]
        # The last number taken is above that of every manifest that the fleet has followed, and
        # below that of the next rollout.
        period = period_of(last, self._clock())
        document = self._manifests.update(current.candidate, last, current.sequence, period)
        for job, device in zip(jobs, stale, strict=True):
            for expired in self._jobs_of(last, device)[:-1]:
                self._jobs.jobs.cancel(expired)
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

    def withdraw_expired(self, fleet: str) -> None:
        """Cancel the jobs of the last rollout whose manifests have expired before every device had
        followed them (idempotent). A device that comes back is then stale.
        """
        current = self._store.current(fleet)
        last = self._store.get(fleet, current.number)
        if current.under_way or last is None:
            return
        for wave in (*last.waves, *([last.back] if last.back is not None else [])):
            if self._is_expired(last, wave) and self._waits(wave):
                self._jobs.cancel([wave])

    def _is_expired(self, last: Rollout, wave: Wave) -> bool:
        expires = expires_at(last, wave.started_at)
        return 0 < expires <= self._clock()

    def _waits(self, wave: Wave) -> bool:
        return any(answer.status in WAITING for answer in self._jobs.answers(wave).values())

    def _refused(self, last: Rollout) -> set[str]:
        """Devices of the last rollout that refused its model, or still have its job to do. Not
        those whose manifest had expired.
        """
        if last.state != "Succeeded":
            return set()
        return {
            device
            for wave in last.waves
            for device, answer in self._jobs.answers(wave).items()
            if answer.status in WAITING or (answer.status in FAILED and answer.is_final)
        }

    def _was_asked(self, last: Rollout, device: str) -> bool:
        """Whether a job of this period is there, or an earlier one was answered."""
        *earlier, present = self._jobs_of(last, device)
        answers = [answer for job in earlier for answer in self._jobs.jobs.executions(job).values()]
        return bool(self._jobs.jobs.executions(present)) or any(
            answer.is_final for answer in answers
        )

    def _jobs_of(self, last: Rollout, device: str) -> list[str]:
        """The ids of a stale device's jobs: one for each period since the rollout."""
        periods = range(period_of(last, self._clock()) + 1)
        return [self._jobs.ids.stale_device(last.fleet, last.number, device, n) for n in periods]
