"""The ports of a staged rollout in memory: where rollouts are kept, and a fleet that takes jobs."""

from __future__ import annotations

import msgspec

from edge.protocol.signed import Manifest, SignedManifest
from registry.errors import RegistryError
from registry.rollout.model import Answer, Candidate, DeviceState, FleetRecord, Rollout


class MemoryStore:
    """Rollouts in dictionaries, by fleet and number."""

    def __init__(self) -> None:
        self.items: dict[str, FleetRecord] = {}
        self.all: dict[tuple[str, int], Rollout] = {}

    def current(self, fleet: str) -> FleetRecord:
        return self.items.get(fleet, FleetRecord(fleet=fleet))

    def replace(self, before: FleetRecord, after: FleetRecord) -> bool:
        if self.items.get(before.fleet, FleetRecord(fleet=before.fleet)) != before:
            return False
        self.items[before.fleet] = after
        return True

    def get(self, fleet: str, number: int) -> Rollout | None:
        return self.all.get((fleet, number))

    def create(self, rollout: Rollout) -> bool:
        if (rollout.fleet, rollout.number) in self.all:
            return False
        self.all[rollout.fleet, rollout.number] = rollout
        return True

    def put(self, rollout: Rollout) -> None:
        self.all[rollout.fleet, rollout.number] = rollout


class Plant:
    """Devices that answer jobs at once, unless they are away or do not like a version."""

    def __init__(
        self, devices: int, away: set[int] = frozenset(), dislike: dict[str, set[int]] | None = None
    ) -> None:
        self.models = {f"d{n:03d}": "" for n in range(devices)}
        self.away = {f"d{n:03d}" for n in away}
        self.frozen: set[str] = set()
        """Devices to whose knowledge every manifest has expired."""
        self.dislike = {
            version: {f"d{n:03d}" for n in who} for version, who in (dislike or {}).items()
        }
        self.jobs: dict[str, dict[str, Answer]] = {}
        self.documents: dict[str, Manifest] = {}
        self.asked: list[str] = []

    def devices(self, fleet: str) -> dict[str, DeviceState]:
        return {
            device: DeviceState(model, device not in self.away)
            for device, model in self.models.items()
        }

    def create(self, job: str, devices: list[str], document: SignedManifest) -> None:
        manifest = msgspec.json.decode(document.manifest, type=Manifest)
        if job in self.jobs:
            if (self.documents[job], set(self.jobs[job])) != (manifest, set(devices)):
                raise RegistryError(f"{job} is another job")
            return
        self.documents[job] = manifest
        self.jobs[job] = dict.fromkeys(devices, Answer("QUEUED"))
        self.asked += devices
        self.work()

    def work(self) -> None:
        for job, executions in self.jobs.items():
            manifest = self.documents[job]
            for device, answer in executions.items():
                if answer.status != "QUEUED" or device in self.away:
                    continue
                if device in self.frozen:
                    executions[device] = Answer("FAILED", "outdated: it has expired", "outdated")
                elif not manifest.forced and device in self.dislike.get(manifest.model_version, ()):
                    executions[device] = Answer("FAILED", "worse: accuracy is 0.1")
                else:
                    self.models[device] = "" if manifest.remove else manifest.model_version
                    executions[device] = Answer("SUCCEEDED")

    def executions(self, job: str) -> dict[str, Answer]:
        return dict(self.jobs.get(job, {}))

    def cancel(self, job: str) -> None:
        if job not in self.jobs:
            return
        self.jobs[job] = {
            device: Answer("CANCELED") if answer.status == "QUEUED" else answer
            for device, answer in self.jobs[job].items()
        }


def candidate(version: int, fleet: str = "f") -> Candidate:
    """Version ``version`` of the model ``wind``."""
    return Candidate(
        fleet=fleet,
        model_version=f"wind/{version}",
        digest=f"{version:064x}",
        size=9,
        app="a" * 64,
        metric="accuracy",
        goal="maximize",
        key="k",
    )
