"""Which devices come next, and the jobs that reach them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from edge.protocol.signed import SignedManifest
from registry.rollout.job_ids import JobIds
from registry.rollout.model import Answer, DeviceState, Rollout, Wave
from registry.rollout.ports import RolloutJobs

TARGETS_PER_JOB = 100
"""Most targets of CreateJob
(https://docs.aws.amazon.com/iot/latest/apireference/API_CreateJob.html).
"""


def choose_canary(rollout: Rollout, devices: Mapping[str, DeviceState]) -> list[str]:
    """The canary: online devices first, since an offline one says nothing about the model."""
    order = sorted(_shuffled(rollout.number, devices), key=lambda name: not devices[name].online)
    share = math.ceil(rollout.policy.canary * len(order))
    return order[: max(rollout.policy.canary_devices, share)]


def choose_wave(rollout: Rollout, devices: Iterable[str]) -> list[str]:
    """The next wave: up to the first share of the policy that is not reached yet. Empty when all
    devices have been asked.
    """
    order, asked = _shuffled(rollout.number, devices), set(rollout.asked)
    rest = [device for device in order if device not in asked]
    for share in rollout.policy.waves:
        count = math.ceil(share * len(order)) - len(asked)
        if count > 0:
            return rest[:count]
    return rest


@dataclass(frozen=True)
class WaveJobs:
    """The IoT jobs of waves: one for each :data:`TARGETS_PER_JOB` devices."""

    jobs: RolloutJobs
    ids: JobIds

    def plan(self, rollout: Rollout, name: str, devices: Sequence[str], now: float) -> Wave:
        """A wave with the ids of its jobs, before any of them exists."""
        batches = range(math.ceil(len(devices) / TARGETS_PER_JOB))
        return Wave(
            devices=list(devices),
            jobs=[self.ids.wave(rollout.fleet, rollout.number, name, b) for b in batches],
            started_at=now,
        )

    def create(self, wave: Wave, document: SignedManifest) -> None:
        """Create the jobs of a wave (idempotent)."""
        for index, job in enumerate(wave.jobs):
            first = index * TARGETS_PER_JOB
            self.jobs.create(job, wave.devices[first : first + TARGETS_PER_JOB], document)

    def answers(
        self, wave: Wave, on_missing: Callable[[], None] = lambda: None
    ) -> dict[str, Answer]:
        """The answers by device; QUEUED for a device that AWS IoT does not list yet.

        ``on_missing`` is called when a job has no executions: a crash has left it out, or AWS IoT
        has not listed them yet.
        """
        found: dict[str, Answer] = {}
        executions = [self.jobs.executions(job) for job in wave.jobs]
        if not all(executions):
            on_missing()
        for answers in executions:
            found.update(answers)
        return {device: found.get(device, Answer("QUEUED")) for device in wave.devices}

    def cancel(self, waves: Iterable[Wave]) -> None:
        """Cancel the open jobs of waves (idempotent)."""
        for wave in waves:
            for job in wave.jobs:
                self.jobs.cancel(job)

    def roll_back(self, rollout: Rollout, document: SignedManifest) -> None:
        """Cancel the open jobs of a rollout, then create those of its rollback (idempotent).

        The rollback's jobs come last: if they exist, the others are known to be cancelled.
        """
        self.cancel(rollout.waves)
        if rollout.back is not None:
            self.create(rollout.back, document)


def _shuffled(number: int, devices: Iterable[str]) -> list[str]:
    """A fixed random order that differs between rollouts, so that the risk of going first is
    shared.
    """
    return sorted(
        devices, key=lambda device: hashlib.sha256(f"{number} {device}".encode()).digest()
    )
