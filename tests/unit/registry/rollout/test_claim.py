"""One rollout at a time on a fleet, and one version queued behind it."""

from __future__ import annotations

import msgspec
import pytest
from fakes.rollout_drive import POLICY, Drive
from fakes.rollouts import Plant, candidate

from registry.errors import RegistryError, RolloutBusy
from registry.rollout.claim import begin, queue_next, release
from registry.rollout.model import FleetRecord


def test_one_rollout_at_a_time_and_the_next_waits_its_turn() -> None:
    drive = Drive(Plant(5))
    first = drive.begin(1)
    with pytest.raises(RolloutBusy, match="Rollout 1 of wind/1 to fleet f is under way") as busy:
        drive.begin(2)
    assert "`mledgeops rollout --abort f --reason WHY`" in str(busy.value)
    queue_next(drive.store, candidate(2))
    queue_next(drive.store, candidate(3))
    drive.to_end(first)
    assert drive.store.current("f").next == "wind/3", "the last one approved"
    with pytest.raises(RegistryError, match="runs wind/1 already"):
        drive.begin(1)


def test_two_that_begin_at_once_do_not_both() -> None:
    drive = Drive(Plant(5))
    stale = drive.store.current("f")
    drive.begin(1)
    seen = drive.store.current
    drive.store.current = lambda fleet: stale
    with pytest.raises(RolloutBusy, match="at the same time"):
        drive.begin(2)
    drive.store.current = seen
    assert drive.store.all["f", 2].state == "Aborted"
    assert drive.store.current("f").under_way == 1


def test_a_number_that_a_crash_left_behind_is_skipped() -> None:
    drive = Drive(Plant(3))
    left = begin(drive.store, candidate(1), POLICY, by="me", reason="", now=0.0)
    drive.store.items.clear()  # the crash came before the fleet was claimed
    assert drive.begin(2).number == left.number + 1


def test_release_frees_only_the_fleet_of_this_rollout_and_may_be_repeated() -> None:
    drive = Drive(Plant(3))
    first = drive.to_end(drive.begin(1))
    second = drive.begin(2)
    release(drive.store, first)
    assert drive.store.current("f").under_way == second.number
    for _ in range(2):
        release(drive.store, msgspec.structs.replace(second, state="RolledBack"))
    current = drive.store.current("f")
    assert (current.under_way, current.candidate) == (0, candidate(1))


def test_a_forced_rollout_may_bring_what_the_fleet_runs_already() -> None:
    drive = Drive(Plant(3))
    drive.to_end(drive.begin(1))
    assert drive.begin(1, forced=True).number == 2


def test_a_release_that_somebody_else_came_before_is_tried_again() -> None:
    drive = Drive(Plant(3))
    rollout = drive.begin(1)
    replace, others = drive.store.replace, [True]

    def busy(before: FleetRecord, after: FleetRecord) -> bool:
        if others.pop() if others else False:
            queue_next_of_another = msgspec.structs.replace(before, next="wind/9")
            assert replace(before, queue_next_of_another)
            return False
        return replace(before, after)

    drive.store.replace = busy
    release(drive.store, msgspec.structs.replace(rollout, state="Succeeded"))
    current = drive.store.current("f")
    assert (current.under_way, current.candidate, current.next) == (0, candidate(1), "wind/9")
