"""A model's way to a fleet: canary, waves, and back by itself when devices do not take it.

Level-triggered: :meth:`Conductor.advance` looks at what is, and takes the next step; it may be
called at any time, and
again after any crash. One rollout at a time on a fleet.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Literal, Protocol

import msgspec

from edge.protocol.messages import Goal
from edge.protocol.signed import Manifest, SignedManifest, manifest_text
from registry.policy import Rollout as RolloutPolicy
from registry.sagemaker_registry import RegistryError

State = Literal["Canary", "Soaking", "Waves", "TurningBack", "Succeeded", "RolledBack", "Aborted"]
OVER = ("Succeeded", "RolledBack", "Aborted")
TARGETS_PER_JOB = 100
"""CreateJob takes at most so many targets
(https://docs.aws.amazon.com/iot/latest/apireference/API_CreateJob.html).
"""
FAILED = frozenset({"FAILED", "REJECTED", "TIMED_OUT"})
WAITING = frozenset({"QUEUED", "IN_PROGRESS"})


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A version that may go to a fleet."""

    fleet: str
    model_version: str
    digest: str
    size: int
    app: str
    metric: str
    goal: Goal
    key: str
    """S3 key of the weights."""


class Wave(msgspec.Struct, frozen=True, kw_only=True):
    """Devices that were asked together."""

    devices: list[str]
    jobs: list[str]
    started_at: float


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout, as it is kept."""

    fleet: str
    number: int
    candidate: Candidate
    previous: Candidate | None
    policy: RolloutPolicy
    by: str
    reason: str
    forced: bool
    state: State
    started_at: float
    sequence: int
    """Of its manifest; the manifest of the way back has the next one."""
    waves: list[Wave] = []
    back: Wave | None = None
    failures: dict[str, str] = {}
    """Devices that did not take the model, with their reasons."""
    switched: int = 0
    waiting: int = 0
    why: str = ""
    """Why it turned back."""
    changed_at: float = 0.0
    ended_at: float = 0.0
    model_version: str = ""
    """For lists: the candidate's."""


class Current(msgspec.Struct, frozen=True, kw_only=True):
    """What a fleet runs, and what is under way."""

    fleet: str
    candidate: Candidate | None = None
    under_way: int = 0
    """Number of the rollout under way; 0: none."""
    number: int = 0
    """The last rollout's number."""
    sequence: int = 0
    """The last manifest's number."""
    next: str = ""
    """A version that was approved while another rollout was under way: it goes next."""


class Beat(msgspec.Struct, frozen=True):
    """What a device's last heartbeat says: the model it runs, and whether it is there."""

    model: str
    there: bool


class Store(Protocol):
    """Port: where rollouts are kept."""

    def current(self, fleet: str) -> Current:
        """What a fleet runs; a fresh item for a fleet that runs nothing."""

    def replace(self, before: Current, after: Current) -> bool:
        """Write ``after`` if the item is still ``before``."""

    def get(self, fleet: str, number: int) -> Rollout | None:
        """A rollout."""

    def create(self, rollout: Rollout) -> bool:
        """Write a new rollout; False when its number is taken."""

    def put(self, rollout: Rollout) -> None:
        """Write a rollout."""


class Jobs(Protocol):
    """Port: AWS IoT Jobs."""

    def create(self, job: str, devices: list[str], document: SignedManifest) -> None:
        """Make a job; one that is there already is as good."""

    def executions(self, job: str) -> Mapping[str, tuple[str, str]]:
        """(status, reason) by device."""

    def cancel(self, job: str) -> None:
        """End a job and all its executions that have not ended."""


class Fleet(Protocol):
    """Port: the devices that were ever heard of."""

    def beats(self, fleet: str) -> Mapping[str, Beat]:
        """By device."""


Sign = Callable[[bytes], str]
Address = Callable[[str], str]
"""What stands for an object's presigned URL in a job's document, by S3 key."""
Ended = Callable[[Rollout], None]
"""Called when a rollout has ended, before it is written down as ended; may be called again after a
crash.
"""


Unwanted = Callable[[Rollout], str]
"""Why a rollout's version may no longer go to devices, such as a rejection meanwhile; empty when it
may.
"""


class RolloutBusy(RegistryError):
    """Another rollout is under way."""


def begin(
    store: Store,
    candidate: Candidate,
    policy: RolloutPolicy,
    *,
    by: str,
    reason: str,
    now: float,
    forced: bool = False,
) -> Rollout:
    """Take the fleet for a rollout; raises RolloutBusy while another is under way, RegistryError
    when nothing would change.
    """
    current = store.current(candidate.fleet)
    if current.under_way:
        other = store.get(candidate.fleet, current.under_way)
        if other is not None and other.state not in OVER:
            raise RolloutBusy(
                f"Rollout {other.number} of {other.candidate.model_version} to fleet {candidate.fleet} is under way ({other.state}): "
                "wait for its end, or stop it with `mledgeops rollout --abort`."
            )
    if (
        current.candidate is not None
        and current.candidate.model_version == candidate.model_version
        and not forced
    ):
        raise RegistryError(
            f"Fleet {candidate.fleet} runs {candidate.model_version} already; nothing was changed."
        )
    rollout = Rollout(
        fleet=candidate.fleet,
        number=current.number + 1,
        candidate=candidate,
        previous=current.candidate,
        policy=policy,
        by=by,
        reason=reason,
        forced=forced,
        state="Canary",
        started_at=now,
        changed_at=now,
        sequence=current.sequence + 1,
        model_version=candidate.model_version,
    )
    # The item before the claim: a claim that names nothing would block the fleet. A number that is
    # taken was left by a crash, or by a rival.
    while not store.create(rollout):
        rollout = msgspec.structs.replace(rollout, number=rollout.number + 1)
    # Two numbers: one for its manifest, one for the way back.
    after = msgspec.structs.replace(
        current, under_way=rollout.number, number=rollout.number, sequence=current.sequence + 2
    )
    if not store.replace(current, after):
        store.put(
            msgspec.structs.replace(
                rollout, state="Aborted", why="another rollout was faster", ended_at=now
            )
        )
        raise RolloutBusy(
            f"Somebody else began a rollout to fleet {candidate.fleet} at this moment: look with `mledgeops rollout`."
        )
    return rollout


def wait_for_turn(store: Store, candidate: Candidate) -> None:
    """Note that a version is to go next, once the rollout under way has ended. The last one noted
    counts.
    """
    while True:
        current = store.current(candidate.fleet)
        if store.replace(current, msgspec.structs.replace(current, next=candidate.model_version)):
            return


class Conductor:
    """Moves rollouts on."""

    def __init__(
        self,
        store: Store,
        jobs: Jobs,
        fleet: Fleet,
        sign: Sign,
        address: Address,
        on_end: Ended,
        prefix: str = "mledgeops",
        unwanted: Unwanted = lambda _: "",
    ) -> None:
        self._unwanted = unwanted
        self._store = store
        self._jobs = jobs
        self._fleet = fleet
        self._sign = sign
        self._address = address
        self._on_end = on_end
        self._prefix = prefix

    def advance(self, fleet: str, number: int, now: float) -> Rollout:
        """One step, if there is one to take; raises RegistryError for a rollout that is not there."""
        rollout = self._store.get(fleet, number)
        if rollout is None:
            raise RegistryError(f"Fleet {fleet} has no rollout {number}.")
        if rollout.state in OVER:
            self._free(rollout)
            return rollout
        steps = {
            "Canary": self._canary,
            "Soaking": self._soak,
            "Waves": self._wave,
            "TurningBack": self._turn_back,
        }
        looked, unwanted = (
            self._looked_at(rollout),
            self._unwanted(rollout) if rollout.waves else "",
        )
        after = (
            self._back(looked, unwanted, now)
            if unwanted and rollout.state != "TurningBack"
            else steps[rollout.state](looked, now)
        )
        if after.state in OVER:
            after = msgspec.structs.replace(after, ended_at=now)
            self._on_end(after)
        if after.state != rollout.state:
            after = msgspec.structs.replace(after, changed_at=now)
        self._store.put(after)
        if after.state in OVER:
            self._free(after)
        return after

    def behind(self, fleet: str) -> list[str]:
        """Devices that are there and use another model than the fleet does, without having been
        asked: enrolled later, or set up anew.
        """
        current = self._store.current(fleet)
        if current.candidate is None or current.under_way:
            return []
        last = self._store.get(fleet, current.number)
        # who refused or was away has its answer, or its job
        waves = last.waves if last is not None and last.state == "Succeeded" else []
        unwilling = {
            device
            for wave in waves
            for device, (status, _) in self._executions(wave).items()
            if status != "SUCCEEDED"
        }
        late = {
            device
            for device, beat in self._fleet.beats(fleet).items()
            if beat.there and beat.model != current.candidate.model_version
        }
        return [
            device
            for device in sorted(late - unwilling)
            if not self._jobs.executions(self._late_job(current, device))
        ]

    def catch_up(self, fleet: str, devices: list[str]) -> list[str]:
        """Give devices that are behind what the fleet uses, by a job each; returns the jobs. They
        test it as any other does.
        """
        current, jobs = self._store.current(fleet), []
        last = self._store.get(fleet, current.number)
        if current.candidate is None or current.under_way or last is None:
            return []
        for device in devices:
            job = self._late_job(current, device)
            # The last number taken: above every manifest that the fleet has followed, below the
            # next one's.
            self._jobs.create(
                job,
                [device],
                self._manifest(current.candidate, last, current.sequence, forced=False),
            )
            jobs.append(job)
        return jobs

    def waits(self, job: str) -> bool:
        """Whether a device has not answered a job yet."""
        return any(status in WAITING for status, _ in self._jobs.executions(job).values())

    def _late_job(self, current: Current, device: str) -> str:
        return f"{self._prefix}-{current.fleet[:30]}-{current.number}-late-{hashlib.sha256(device.encode()).hexdigest()[:16]}"

    def abort(self, fleet: str, number: int, why: str, now: float) -> Rollout:
        """Turn back by hand."""
        rollout = self._store.get(fleet, number)
        if rollout is None or rollout.state in OVER:
            raise RegistryError(f"Fleet {fleet} has no rollout under way.")
        after = self._back(self._looked_at(rollout), why, now)
        self._store.put(after)
        return after

    def _looked_at(self, rollout: Rollout) -> Rollout:
        """Who switched, who failed and who has not answered, over all waves."""
        failures: dict[str, str] = {}
        switched = waiting = 0
        for wave in rollout.waves:
            for device, (status, reason) in self._executions(wave).items():
                switched += status == "SUCCEEDED"
                waiting += status in WAITING
                if status in FAILED:
                    failures[device] = reason or status
        return msgspec.structs.replace(
            rollout, failures=failures, switched=switched, waiting=waiting
        )

    def _executions(self, wave: Wave) -> dict[str, tuple[str, str]]:
        found: dict[str, tuple[str, str]] = {}
        for job in wave.jobs:
            found.update(self._jobs.executions(job))
        return {device: found.get(device, ("QUEUED", "")) for device in wave.devices}

    def _canary(self, rollout: Rollout, now: float) -> Rollout:
        if not rollout.waves:
            beats = self._fleet.beats(rollout.fleet)
            # one that is away tells nothing
            devices = sorted(
                _order(rollout.number, beats), key=lambda device: not beats[device].there
            )
            if not devices:  # nobody to ask: the fleet's first device will be told when it is there
                return msgspec.structs.replace(rollout, state="Succeeded")
            count = min(
                len(devices),
                max(rollout.policy.canary_devices, math.ceil(rollout.policy.canary * len(devices))),
            )
            return self._started(rollout, devices[:count], now)
        verdict = self._verdict(rollout, now)
        if verdict != "go on":
            return self._judged(rollout, verdict, now)
        return msgspec.structs.replace(rollout, state="Soaking")

    def _soak(self, rollout: Rollout, now: float) -> Rollout:
        beats = self._fleet.beats(rollout.fleet)
        done = [
            device
            for device, (status, _) in self._executions(rollout.waves[0]).items()
            if status == "SUCCEEDED"
        ]
        # A heartbeat may be older than the switch; at the end of the soak none is.
        over = now - rollout.changed_at >= rollout.policy.soak_seconds
        gone = [
            d
            for d in done
            if not beats[d].there
            or (
                over
                and rollout.policy.soak_seconds
                and beats[d].model != rollout.candidate.model_version
            )
        ]
        if rollout.policy.soak_seconds and len(gone) > rollout.policy.abort * len(done):
            return self._back(
                rollout,
                f"{len(gone)} of {len(done)} canary devices went away or lost the model after they had switched",
                now,
            )
        return msgspec.structs.replace(rollout, state="Waves") if over else rollout

    def _wave(self, rollout: Rollout, now: float) -> Rollout:
        verdict = self._verdict(rollout, now)
        if verdict != "go on":
            return self._judged(rollout, verdict, now)
        asked = {device for wave in rollout.waves for device in wave.devices}
        devices = _order(rollout.number, self._fleet.beats(rollout.fleet))
        rest = [device for device in devices if device not in asked]
        if not rest:
            return msgspec.structs.replace(rollout, state="Succeeded")
        for share in rollout.policy.waves:
            count = math.ceil(share * len(devices)) - len(asked)
            if count > 0:
                return self._started(rollout, rest[:count], now)
        return self._started(rollout, rest, now)

    def _verdict(self, rollout: Rollout, now: float) -> Literal["wait", "go on", "turn back"]:
        """Of all devices asked so far: enough good answers to go on, too many bad ones, or neither
        yet.
        """
        answered, failed = rollout.switched + len(rollout.failures), len(rollout.failures)
        if failed > rollout.policy.abort * answered and (
            failed > rollout.policy.abort * (answered + rollout.waiting) or not rollout.waiting
        ):
            return "turn back"
        late = now - rollout.waves[-1].started_at >= rollout.policy.wave_seconds
        if rollout.waiting and not late:
            return "wait"
        if not answered:
            return "turn back" if rollout.state == "Canary" else "go on"
        return "go on" if rollout.switched >= rollout.policy.success * answered else "turn back"

    def _judged(self, rollout: Rollout, verdict: str, now: float) -> Rollout:
        if verdict == "wait":
            return rollout
        answered = rollout.switched + len(rollout.failures)
        example = next(iter(sorted(rollout.failures.items())), None)
        if example is None:
            return self._back(
                rollout,
                f"no device of the canary answered within {rollout.policy.wave_seconds:.0f} s",
                now,
            )
        return self._back(
            rollout,
            f"{len(rollout.failures)} of {answered} devices did not take it; {example[0]}: {example[1]}",
            now,
        )

    def _started(self, rollout: Rollout, devices: list[str], now: float) -> Rollout:
        manifest = self._manifest(
            rollout.candidate, rollout, rollout.sequence, forced=rollout.forced
        )
        wave = self._ask(rollout, f"w{len(rollout.waves)}", devices, manifest, now)
        return msgspec.structs.replace(
            rollout, waves=[*rollout.waves, wave], waiting=rollout.waiting + len(devices)
        )

    def _ask(
        self, rollout: Rollout, name: str, devices: list[str], document: SignedManifest, now: float
    ) -> Wave:
        jobs = []
        for at in range(0, len(devices), TARGETS_PER_JOB):
            job = f"{self._prefix}-{rollout.fleet[:30]}-{rollout.number}-{name}-{at // TARGETS_PER_JOB}"
            self._jobs.create(job, devices[at : at + TARGETS_PER_JOB], document)
            jobs.append(job)
        return Wave(devices=devices, jobs=jobs, started_at=now)

    def _back(self, rollout: Rollout, why: str, now: float) -> Rollout:
        """Cancel what is open, and send all that were asked back to what the fleet ran before."""
        for wave in rollout.waves:
            for job in wave.jobs:
                self._jobs.cancel(job)
        devices = [device for wave in rollout.waves for device in wave.devices]
        target = rollout.previous or rollout.candidate
        manifest = self._manifest(
            target, rollout, rollout.sequence + 1, forced=True, remove=rollout.previous is None
        )
        back = self._ask(rollout, "back", devices, manifest, now)
        return msgspec.structs.replace(rollout, state="TurningBack", why=why, back=back)

    def _turn_back(self, rollout: Rollout, now: float) -> Rollout:
        if rollout.back is None:
            return self._back(rollout, rollout.why, now)
        statuses = [status for status, _ in self._executions(rollout.back).values()]
        open_ = any(status in WAITING for status in statuses)
        if open_ and now - rollout.back.started_at < rollout.policy.wave_seconds:
            return rollout
        return msgspec.structs.replace(rollout, state="RolledBack")

    def _manifest(
        self,
        candidate: Candidate,
        rollout: Rollout,
        sequence: int,
        *,
        forced: bool,
        remove: bool = False,
    ) -> SignedManifest:
        text = manifest_text(
            Manifest(
                fleet=candidate.fleet,
                model_version=candidate.model_version,
                digest=candidate.digest,
                size=candidate.size,
                app=candidate.app,
                metric=candidate.metric,
                goal=candidate.goal,
                tolerance=rollout.policy.tolerance,
                sequence=sequence,
                forced=forced,
                remove=remove,
            )
        )
        return SignedManifest(
            manifest=text.decode(), signature=self._sign(text), url=self._address(candidate.key)
        )

    def _free(self, rollout: Rollout) -> None:
        """The fleet runs what the rollout left, and is free for the next."""
        while True:
            current = self._store.current(rollout.fleet)
            if current.under_way != rollout.number:
                return
            candidate = rollout.candidate if rollout.state == "Succeeded" else current.candidate
            if self._store.replace(
                current, msgspec.structs.replace(current, under_way=0, candidate=candidate)
            ):
                return


def _order(number: int, devices: Mapping[str, object]) -> list[str]:
    """By lot, another one for each rollout: the same devices must not always go first."""
    return sorted(
        devices, key=lambda device: hashlib.sha256(f"{number} {device}".encode()).digest()
    )
