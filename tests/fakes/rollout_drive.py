"""A conductor over an in-memory fleet, with a clock that a test turns."""

from __future__ import annotations

from typing import Any

from fakes.keys import MODELS
from fakes.rollouts import MemoryStore, Plant, candidate
from fakes.trail import MemoryEntries
from registry.audit import AuditTrail
from registry.policy import RolloutPolicy
from registry.provenance import ProvenanceMismatch
from registry.rollout.claim import begin
from registry.rollout.conductor import Conductor
from registry.rollout.job_ids import JobIds
from registry.rollout.manifests import Manifests
from registry.rollout.model import TERMINAL_STATES, Candidate, Rollout
from registry.rollout.stale_devices import StaleDevices
from registry.rollout.waves import WaveJobs

POLICY = RolloutPolicy(canary=0.1, waves=(0.5, 1.0), wave_seconds=100.0)


class Drive:
    """A store, a plant, and what moves rollouts on."""

    def __init__(self, plant: Plant) -> None:
        self.store, self.plant, self.now, self.ended = MemoryStore(), plant, 0.0, []
        self.rejected: set[str] = set()
        jobs = WaveJobs(plant, JobIds("mledgeops"))
        self.changed: set[str] = set()
        """Versions that are no longer what was linked."""
        manifests = Manifests(MODELS.sign, lambda key: f"https://{key}", self._verify)
        self.audit = AuditTrail(MemoryEntries())
        self.stale_devices = StaleDevices(
            self.store, jobs, plant, manifests, self.audit, lambda: self.now
        )
        self.conductor = Conductor(
            self.store,
            jobs,
            plant,
            manifests,
            on_end=self.ended.append,
            unwanted=lambda rollout: (
                "it was rejected" if rollout.model_version in self.rejected else ""
            ),
        )

    def _verify(self, candidate: Candidate) -> None:
        if candidate.model_version in self.changed:
            raise ProvenanceMismatch(f"{candidate.model_version} is not what was linked")

    def begin(self, version: int, **changes: Any) -> Rollout:
        return begin(
            self.store,
            candidate(version),
            changes.pop("policy", POLICY),
            by="me",
            reason="good",
            now=self.now,
            **changes,
        )

    def to_end(self, rollout: Rollout, step: float = 10.0) -> Rollout:
        for _ in range(200):
            self.now += step
            self.plant.work()
            rollout = self.conductor.advance("f", rollout.number, self.now)
            if rollout.state in TERMINAL_STATES:
                return rollout
        raise AssertionError(f"it stays {rollout.state}")
