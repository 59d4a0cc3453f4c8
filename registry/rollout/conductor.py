"""Advances rollouts: canary, soak, waves, and the rollback when too many devices fail.

Level-triggered: :meth:`Conductor.advance` reads the present state and takes the next step. It may
be called at any time, and again after any crash.
"""

from __future__ import annotations

import functools

import msgspec

from registry.errors import RegistryError
from registry.provenance import ProvenanceMismatch, ProvenanceMissing
from registry.rollout.claim import release
from registry.rollout.judging import failure_text, lost_canary, verdict, with_answers
from registry.rollout.manifests import Manifests
from registry.rollout.model import SUCCEEDED, TERMINAL_STATES, WAITING, Answer, Rollout, Wave
from registry.rollout.ports import FleetStatus, OnEnd, RolloutStore, Unwanted
from registry.rollout.waves import WaveJobs, choose_canary, choose_wave


class Conductor:
    """Advances rollouts one step at a time."""

    def __init__(
        self,
        store: RolloutStore,
        jobs: WaveJobs,
        fleet: FleetStatus,
        manifests: Manifests,
        *,
        on_end: OnEnd,
        unwanted: Unwanted,
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._fleet = fleet
        self._manifests = manifests
        self._on_end = on_end
        self._unwanted = unwanted

    def advance(self, fleet: str, number: int, now: float) -> Rollout:
        """Take the next step, if one is due. Raises RegistryError when there is no such rollout."""
        before = self._store.get(fleet, number)
        if before is None:
            raise RegistryError(f"Fleet {fleet} has no rollout {number}.")
        if before.state in TERMINAL_STATES:
            release(self._store, before)
            return before
        after = self._next(before, now)
        if after.state in TERMINAL_STATES:
            after = msgspec.structs.replace(after, ended_at=now)
            self._on_end(after)
        if after.state != before.state:
            after = msgspec.structs.replace(after, changed_at=now)
        self._store.put(after)
        if after.state in TERMINAL_STATES:
            release(self._store, after)
        return after

    def abort(self, fleet: str, number: int, why: str, now: float) -> Rollout:
        """Begin the rollback by hand. Raises RegistryError when the rollout is not under way."""
        rollout = self._store.get(fleet, number)
        if rollout is None or rollout.state in TERMINAL_STATES:
            raise RegistryError(f"Fleet {fleet} has no rollout under way.")
        return self._roll_back(self._counted(rollout), why, now)

    def _next(self, rollout: Rollout, now: float) -> Rollout:
        try:
            return self._step(rollout, now)
        except (ProvenanceMismatch, ProvenanceMissing) as error:
            # The model is not what was approved. A wave may have been stored without its jobs.
            stored = self._store.get(rollout.fleet, rollout.number) or rollout
            return self._roll_back(stored, str(error), now)

    def _step(self, rollout: Rollout, now: float) -> Rollout:
        counted = self._counted(rollout)
        if rollout.state == "TurningBack":
            return self._await_rollback(counted, now)
        if rollout.waves and (unwanted := self._unwanted(rollout)):
            return self._roll_back(counted, unwanted, now)
        if rollout.state == "Soaking":
            return self._soak(counted, now)
        if not rollout.waves:
            canary = choose_canary(counted, self._fleet.devices(rollout.fleet))
            return self._begin_wave(counted, canary, now)
        judged = verdict(counted, now)
        if judged == "roll back":
            return self._roll_back(counted, failure_text(counted), now)
        if judged == "wait":
            return counted
        if rollout.state == "Canary":
            return msgspec.structs.replace(counted, state="Soaking")
        wave = choose_wave(counted, self._fleet.devices(rollout.fleet))
        return self._begin_wave(counted, wave, now)

    def _counted(self, rollout: Rollout) -> Rollout:
        answers: dict[str, Answer] = {}
        for wave in rollout.waves:
            answers |= self._jobs.answers(wave, functools.partial(self._create, rollout, wave))
        return with_answers(rollout, answers)

    def _create(self, rollout: Rollout, wave: Wave) -> None:
        """Create the jobs of a stored wave; once the rollback has begun there must be no more."""
        if rollout.back is None:
            self._jobs.create(wave, self._manifests.switch(rollout, wave.started_at))

    def _begin_wave(self, rollout: Rollout, devices: list[str], now: float) -> Rollout:
        """Begin the next wave. No devices: all have been asked, or the fleet is empty and its first
        device will get the model as a stale one.
        """
        if not devices:
            return msgspec.structs.replace(rollout, state="Succeeded")
        wave = self._jobs.plan(rollout, f"w{len(rollout.waves)}", devices, now)
        begun = msgspec.structs.replace(
            rollout, waves=[*rollout.waves, wave], waiting=rollout.waiting + len(devices)
        )
        # Stored before its jobs exist: a retry after a crash could choose other devices, as they
        # come online or enrol, and those of the first try would never be rolled back.
        self._store.put(begun)
        self._create(begun, wave)
        return begun

    def _soak(self, rollout: Rollout, now: float) -> Rollout:
        answers = self._jobs.answers(rollout.waves[0])
        switched = [device for device, answer in answers.items() if answer.status == SUCCEEDED]
        soak_over = now - rollout.changed_at >= rollout.policy.soak_seconds
        devices = self._fleet.devices(rollout.fleet)
        why = lost_canary(rollout, switched, devices, soak_over=soak_over)
        if why:
            return self._roll_back(rollout, why, now)
        return msgspec.structs.replace(rollout, state="Waves") if soak_over else rollout

    def _roll_back(self, rollout: Rollout, why: str, now: float) -> Rollout:
        """Cancel open jobs, and return all devices that were asked to the previous model."""
        back = self._jobs.plan(rollout, "back", rollout.asked, now)
        begun = msgspec.structs.replace(
            rollout, state="TurningBack", why=why, back=back, changed_at=now
        )
        self._store.put(begun)
        self._jobs.roll_back(begun, self._manifests.rollback(begun))
        return begun

    def _await_rollback(self, rollout: Rollout, now: float) -> Rollout:
        if rollout.back is None:
            return self._roll_back(rollout, rollout.why, now)
        answers = self._jobs.answers(
            rollout.back,
            lambda: self._jobs.roll_back(rollout, self._manifests.rollback(rollout)),
        )
        waiting = any(answer.status in WAITING for answer in answers.values())
        if waiting and now - rollout.back.started_at < rollout.policy.wave_seconds:
            return rollout
        return msgspec.structs.replace(rollout, state="RolledBack")
