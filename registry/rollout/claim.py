"""Claiming a fleet: one rollout at a time, and one queued version behind it."""

from __future__ import annotations

import msgspec

from registry.errors import RegistryError, RolloutBusy
from registry.policy import RolloutPolicy
from registry.rollout.model import TERMINAL_STATES, Candidate, FleetRecord, Rollout
from registry.rollout.ports import RolloutStore


def begin(
    store: RolloutStore,
    candidate: Candidate,
    policy: RolloutPolicy,
    *,
    by: str,
    reason: str,
    now: float,
    forced: bool = False,
    way_back: Candidate | None = None,
) -> Rollout:
    """Claim the candidate's fleet for a new rollout and store it. ``way_back``: what the fleet
    runs, if it was verified just now.

    Raises RolloutBusy while another rollout is under way, RegistryError when the fleet runs the
    candidate already and ``forced`` is not set.
    """
    current = store.current(candidate.fleet)
    _check_free(store, current)
    _check_change(current, candidate, forced)
    rollout = Rollout(
        fleet=candidate.fleet,
        number=current.number + 1,
        candidate=candidate,
        previous=current.candidate,
        previous_verified=current.candidate is not None and current.candidate == way_back,
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
    # The rollout is stored before the fleet's record points to it: a record that points to nothing
    # would block the fleet. A number that is taken was left by a crash or by a concurrent begin.
    while not store.create(rollout):
        rollout = msgspec.structs.replace(rollout, number=rollout.number + 1)
    claimed = msgspec.structs.replace(
        current,
        under_way=rollout.number,
        number=rollout.number,
        sequence=current.sequence + 2,  # one for its manifest, one for that of its rollback
    )
    if not store.replace(current, claimed):
        why = "another rollout was faster"
        store.put(msgspec.structs.replace(rollout, state="Aborted", why=why, ended_at=now))
        raise RolloutBusy(
            f"Somebody else began a rollout to fleet {candidate.fleet} at the same time: "
            "see `mledgeops rollout`."
        )
    return rollout


def queue_next(store: RolloutStore, candidate: Candidate) -> None:
    """Queue a version behind the rollout under way. It replaces a version queued before."""
    while True:
        current = store.current(candidate.fleet)
        if store.replace(current, msgspec.structs.replace(current, next=candidate.model_version)):
            return


def release(store: RolloutStore, rollout: Rollout) -> None:
    """Free the fleet of an ended rollout (idempotent). After a success it runs the candidate."""
    while True:
        current = store.current(rollout.fleet)
        if current.under_way != rollout.number:
            return
        candidate = rollout.candidate if rollout.state == "Succeeded" else current.candidate
        freed = msgspec.structs.replace(current, under_way=0, candidate=candidate)
        if store.replace(current, freed):
            return


def _check_free(store: RolloutStore, current: FleetRecord) -> None:
    other = store.get(current.fleet, current.under_way) if current.under_way else None
    if other is not None and other.state not in TERMINAL_STATES:
        raise RolloutBusy(
            f"Rollout {other.number} of {other.candidate.model_version} to fleet {current.fleet} "
            f"is under way ({other.state}): wait for its end, or stop it with "
            f"`mledgeops rollout --abort {current.fleet} --reason WHY`."
        )


def _check_change(current: FleetRecord, candidate: Candidate, forced: bool) -> None:
    running = current.candidate.model_version if current.candidate is not None else ""
    if running == candidate.model_version and not forced:
        raise RegistryError(
            f"Fleet {candidate.fleet} runs {candidate.model_version} already; nothing was changed."
        )
