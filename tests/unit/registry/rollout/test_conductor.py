"""Canary, waves and rollback over an in-memory fleet; a crash at any step loses nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fakes.rollout_drive import POLICY, Drive
from fakes.rollouts import Plant, candidate
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import RegistryError
from registry.rollout.model import TERMINAL_STATES


def test_canary_then_waves_then_all() -> None:
    drive = Drive(Plant(20))
    done = drive.to_end(drive.begin(1))
    assert (done.state, done.switched) == ("Succeeded", 20)
    assert [len(wave.devices) for wave in done.waves] == [2, 8, 10]
    assert set(drive.plant.models.values()) == {"wind/1"}
    assert drive.store.current("f").candidate == candidate(1)
    assert drive.store.current("f").under_way == 0
    assert [rollout.state for rollout in drive.ended] == ["Succeeded"]


def test_a_model_that_the_canary_does_not_take_never_reaches_the_others() -> None:
    drive = Drive(Plant(20, dislike={"wind/2": set(range(20))}))
    drive.to_end(drive.begin(1))
    drive.plant.asked.clear()
    done = drive.to_end(drive.begin(2))
    assert done.state == "RolledBack"
    assert "2 of 2 devices did not take it" in done.why and "accuracy is 0.1" in done.why
    assert len(set(drive.plant.asked)) == 2
    assert set(drive.plant.models.values()) == {"wind/1"}
    assert drive.store.current("f").candidate == candidate(1)


def test_a_model_that_fails_in_a_wave_is_taken_back_from_all_that_have_it() -> None:
    drive = Drive(Plant(20))
    drive.to_end(drive.begin(1))
    rollout = drive.begin(2)
    drive.conductor.advance("f", 2, 1.0)
    canary = set(drive.store.all["f", 2].waves[0].devices)
    drive.plant.dislike["wind/2"] = set(drive.plant.models) - canary
    done = drive.to_end(rollout)
    assert done.state == "RolledBack"
    assert set(drive.plant.models.values()) == {"wind/1"}


def test_the_first_model_of_a_fleet_is_taken_out_again_when_it_fails() -> None:
    drive = Drive(Plant(10, dislike={"wind/1": {n for n in range(10) if n % 2}}))
    done = drive.to_end(drive.begin(1, policy=msgspec.structs.replace(POLICY, canary=1.0)))
    assert done.state == "RolledBack"
    assert set(drive.plant.models.values()) == {""}
    assert drive.store.current("f").candidate is None


def test_devices_that_are_away_catch_up_and_hold_nobody_up_for_ever() -> None:
    drive = Drive(Plant(10, away={1, 2, 3}))
    done = drive.to_end(drive.begin(1), step=60.0)
    assert (done.state, done.switched, done.waiting) == ("Succeeded", 7, 3)
    drive.plant.away = set()
    drive.plant.work()
    assert set(drive.plant.models.values()) == {"wind/1"}
    away = Drive(Plant(3, away={0, 1, 2}))
    done = away.to_end(away.begin(1), step=60.0)
    assert (done.state, done.why) == ("RolledBack", "no device of the canary answered within 100 s")


def test_the_canary_is_watched() -> None:
    policy = msgspec.structs.replace(POLICY, soak_seconds=50.0)
    drive = Drive(Plant(10))
    rollout = drive.begin(1, policy=policy)
    for _ in range(3):
        drive.now += 10
        rollout = drive.conductor.advance("f", 1, drive.now)
    assert rollout.state == "Soaking"
    drive.plant.away = set(rollout.waves[0].devices)
    drive.now += 10
    rollout = drive.conductor.advance("f", 1, drive.now)
    assert rollout.state == "TurningBack"
    assert "went away" in rollout.why
    for soaked, state in ((49.9, "Soaking"), (50.0, "Waves")):
        waited = Drive(Plant(10))
        rollout = waited.begin(1, policy=policy)
        for _ in range(2):
            rollout = waited.conductor.advance("f", 1, 10.0)
        assert rollout.state == "Soaking"
        assert waited.conductor.advance("f", 1, 10.0 + soaked).state == state
    calm = Drive(Plant(10))
    done = calm.to_end(calm.begin(1, policy=policy))
    assert done.state == "Succeeded"
    assert done.ended_at - done.started_at >= 50


def test_a_person_can_turn_it_back() -> None:
    drive = Drive(Plant(20, away=set(range(20))))
    drive.begin(1)
    drive.conductor.advance("f", 1, 1.0)
    assert drive.conductor.abort("f", 1, "I saw smoke", 2.0).state == "TurningBack"
    drive.plant.away = set()
    assert drive.to_end(drive.store.all["f", 1]).why == "I saw smoke"
    with pytest.raises(RegistryError, match="no rollout under way"):
        drive.conductor.abort("f", 1, "again", 3.0)


def test_a_version_that_is_rejected_on_its_way_turns_back() -> None:
    drive = Drive(Plant(10))
    drive.to_end(drive.begin(1), step=60.0)
    drive.plant.away = set(drive.plant.models)
    rollout = drive.begin(2)
    drive.conductor.advance("f", rollout.number, drive.now)
    drive.rejected.add("wind/2")
    done = drive.to_end(rollout, step=60.0)
    assert done.state == "RolledBack"
    assert "rejected" in done.why
    drive.plant.away.clear()
    drive.plant.work()
    assert set(drive.plant.models.values()) == {"wind/1"}


class Crash(BaseException):
    pass


@given(
    st.integers(1, 60),
    st.sampled_from(["good", "bad", "half"]),
    st.sets(st.integers(0, 11), max_size=6),
)
def test_a_conductor_that_dies_anywhere_ends_as_one_that_does_not(
    step: int, kind: str, away: set[int]
) -> None:
    disliked = {"good": set(), "bad": set(range(12)), "half": set(range(0, 12, 2))}[kind]

    def outcome(crash_at: int) -> tuple[str, set[str], Any]:
        drive, calls = Drive(Plant(12, away, {"wind/2": disliked})), [0]
        drive.to_end(drive.begin(1), step=60.0)

        def tripping(function):
            def call(*arguments: Any) -> Any:
                calls[0] += 1
                if calls[0] == crash_at:
                    raise Crash
                found = function(*arguments)
                calls[0] += 1
                if calls[0] == crash_at:
                    raise Crash
                return found

            return call

        for owner, names in (
            (drive.store, ("put", "replace")),
            (drive.plant, ("create", "cancel")),
        ):
            for name in names:
                setattr(owner, name, tripping(getattr(owner, name)))
        rollout = None
        for _ in range(400):
            drive.now += 60
            drive.plant.work()
            try:
                rollout = (
                    rollout or drive.store.all.get(("f", 2))
                    if drive.store.current("f").under_way == 2
                    else rollout
                )
                rollout = rollout or drive.begin(2)
                if (
                    drive.conductor.advance("f", rollout.number, drive.now).state in TERMINAL_STATES
                    and drive.store.current("f").under_way == 0
                ):
                    break
            except Crash:
                continue
        last = drive.store.all["f", rollout.number]
        there = {
            model for device, model in drive.plant.models.items() if device not in drive.plant.away
        }
        return last.state, there, drive.store.current("f").candidate

    assert outcome(step) == outcome(0)


def test_a_retry_after_a_crash_asks_the_same_devices() -> None:
    drive = Drive(Plant(20, away=set(range(10))))
    drive.begin(1)
    create = drive.plant.create

    def crash(*_: Any) -> None:
        raise Crash

    drive.plant.create = crash  # type: ignore[method-assign]
    with pytest.raises(Crash):
        drive.conductor.advance("f", 1, 1.0)
    drive.plant.create = create  # type: ignore[method-assign]
    drive.plant.away = set(list(drive.plant.models)[10:])  # others are online now
    rollout = drive.conductor.advance("f", 1, 2.0)
    assert len(rollout.waves) == 1
    assert sorted(drive.plant.asked) == sorted(rollout.waves[0].devices)


def test_a_rollback_that_crashed_still_cancels_what_was_open() -> None:
    drive = Drive(Plant(4, away=set(range(4))))
    drive.begin(1)
    drive.conductor.advance("f", 1, 1.0)
    cancel = drive.plant.cancel

    def crash(*_: Any) -> None:
        raise Crash

    drive.plant.cancel = crash  # type: ignore[method-assign]
    with pytest.raises(Crash):
        drive.conductor.abort("f", 1, "smoke", 2.0)
    drive.plant.cancel = cancel  # type: ignore[method-assign]
    drive.conductor.advance("f", 1, 3.0)
    drive.plant.away.clear()
    done = drive.to_end(drive.store.all["f", 1])
    assert (done.state, done.why, done.switched) == ("RolledBack", "smoke", 0)
    assert set(drive.plant.models.values()) == {""}


def test_a_fleet_without_devices_is_done_at_once_and_an_unknown_rollout_is_refused() -> None:
    drive = Drive(Plant(0))
    done = drive.to_end(drive.begin(1))
    assert (done.state, done.waves) == ("Succeeded", [])
    with pytest.raises(RegistryError, match="has no rollout 9"):
        drive.conductor.advance("f", 9, 0.0)


@pytest.mark.parametrize("before_the_canary", [True, False])
def test_a_model_that_is_changed_on_its_way_is_rolled_back(before_the_canary: bool) -> None:
    drive = Drive(Plant(4))
    drive.to_end(drive.begin(1))
    begun = drive.begin(2)
    if not before_the_canary:
        begun = drive.conductor.advance("f", begun.number, drive.now)
    drive.changed.add("wind/2")
    ended = drive.to_end(begun)
    assert (ended.state, ended.why) == ("RolledBack", "wind/2 is not what was linked")
    assert set(drive.plant.models.values()) == {"wind/1"}


def test_a_rollback_to_what_is_not_what_was_linked_removes_the_model() -> None:
    drive = Drive(Plant(3, dislike={"wind/2": {0, 1, 2}}))
    drive.to_end(drive.begin(1))
    begun = drive.begin(2)
    drive.changed.add("wind/1")
    ended = drive.to_end(begun)
    assert ended.state == "RolledBack"
    assert set(drive.plant.models.values()) == {"wind/1", ""}


def test_a_rollback_returns_to_what_was_verified_when_the_rollout_began() -> None:
    drive = Drive(Plant(3, dislike={"wind/2": {0, 1, 2}}))
    drive.to_end(drive.begin(1))
    begun = drive.begin(2, way_back=candidate(1))
    drive.changed.add("wind/1")  # somebody exchanges it in the registry meanwhile
    assert drive.to_end(begun).state == "RolledBack"
    assert set(drive.plant.models.values()) == {"wind/1"}
    back = list(drive.plant.documents.values())[-1]
    assert (back.digest, back.forced) == (candidate(1).digest, True)


def test_a_rollback_waits_for_each_device_until_its_wave_is_over() -> None:
    drive = Drive(Plant(10, dislike={"wind/2": set(range(10))}))
    drive.to_end(drive.begin(1))
    everybody = msgspec.structs.replace(POLICY, canary=1.0, abort=0.9)
    drive.begin(2, policy=everybody)
    drive.conductor.advance("f", 2, drive.now)
    drive.plant.away = {"d001"}
    began = drive.now
    drive.conductor.abort("f", 2, "smoke", began)
    assert drive.conductor.advance("f", 2, began + 99.0).state == "TurningBack"
    done = drive.conductor.advance("f", 2, began + 100.0)
    assert (done.state, done.changed_at, done.ended_at) == ("RolledBack", *[began + 100.0] * 2)


def test_the_devices_of_a_wave_that_has_just_begun_are_waited_for() -> None:
    drive = Drive(Plant(20, away=set(range(20))))
    drive.begin(1)
    begun = drive.conductor.advance("f", 1, drive.now)
    assert (begun.waiting, len(begun.asked)) == (2, 2)
    assert drive.store.get("f", 1) == begun
