"""Rollouts as data. All of it but :class:`DeviceState` and :class:`Answer` is stored as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec

from edge.protocol.messages import Goal
from registry.policy import RolloutPolicy

State = Literal["Canary", "Soaking", "Waves", "TurningBack", "Succeeded", "RolledBack", "Aborted"]
TERMINAL_STATES = ("Succeeded", "RolledBack", "Aborted")
SUCCEEDED = "SUCCEEDED"
FAILED = frozenset({"FAILED", "REJECTED", "TIMED_OUT"})
OUTDATED = "outdated"
"""Reason code of a device that refused a manifest since it is too old."""
WAITING = frozenset({"QUEUED", "IN_PROGRESS"})
"""States of a job execution in AWS IoT. In all others, such as CANCELED, no answer will come.

https://docs.aws.amazon.com/iot/latest/developerguide/iot-jobs-lifecycle.html
"""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A version that may go to a fleet."""

    fleet: str
    model_version: str
    """NAME/NUMBER."""
    digest: str
    """SHA-256 of the weights."""
    size: int
    """Bytes of the weights."""
    app: str
    """SHA-256 of the app's bundle."""
    metric: str
    goal: Goal
    key: str
    """S3 key of the weights."""


class Wave(msgspec.Struct, frozen=True, kw_only=True):
    """Devices that get a model at the same time, and the IoT jobs that tell them."""

    devices: list[str]
    jobs: list[str]
    started_at: float
    """Unix seconds."""


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout to one fleet."""

    fleet: str
    number: int
    """Counts the rollouts of a fleet from 1."""
    candidate: Candidate
    previous: Candidate | None
    """What the fleet ran before, and runs again after a rollback; None: no model."""
    previous_verified: bool = False
    """Whether ``previous`` was what was linked when the rollout began."""
    policy: RolloutPolicy
    by: str
    reason: str
    forced: bool
    """Devices switch without comparing the model with theirs."""
    state: State
    started_at: float
    sequence: int
    """Number of its manifest. The manifest of its rollback has the next one."""
    waves: list[Wave] = []
    """The canary first."""
    back: Wave | None = None
    """The rollback."""
    failures: dict[str, str] = {}
    """Reasons by device, for those that refused the model or failed to switch."""
    switched: int = 0
    waiting: int = 0
    """Devices that have not answered yet."""
    why: str = ""
    """Why it rolls back."""
    changed_at: float = 0.0
    """When it entered its state."""
    ended_at: float = 0.0
    model_version: str = ""
    """The candidate's, repeated at the top level for lists."""

    @property
    def name(self) -> str:
        """FLEET-NUMBER."""
        return f"{self.fleet}-{self.number}"

    @property
    def asked(self) -> list[str]:
        """The devices of all waves."""
        return [device for wave in self.waves for device in wave.devices]

    @property
    def answered(self) -> int:
        """Number of devices that switched or failed."""
        return self.switched + len(self.failures)

    def jobs(self) -> Iterator[str]:
        """The ids of all its jobs, those of the rollback included."""
        for wave in (*self.waves, *([self.back] if self.back is not None else [])):
            yield from wave.jobs


class FleetRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a fleet runs, and which rollout is under way."""

    fleet: str
    candidate: Candidate | None = None
    """None: no model."""
    under_way: int = 0
    """Number of the rollout under way; 0: none."""
    number: int = 0
    """Number of the last rollout."""
    sequence: int = 0
    """Number of the last manifest."""
    next: str = ""
    """Queued version: it was approved while another rollout was under way."""


class DeviceState(NamedTuple):
    """What a device's last heartbeat says."""

    model: str
    """NAME/NUMBER of the model that it runs; empty: none."""
    online: bool


class Answer(NamedTuple):
    """A device's job execution."""

    status: str
    reason: str = ""
    """Why it failed."""
    code: str = ""
    """The device's reason code, if it gave one."""

    @property
    def is_final(self) -> bool:
        """Whether asking the device again would not change its answer. ``outdated``: its manifest
        had expired when it came, and one that is signed anew has not.
        """
        failed = self.status in FAILED and self.code != OUTDATED
        return failed or self.status == SUCCEEDED
