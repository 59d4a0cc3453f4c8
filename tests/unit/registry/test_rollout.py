"""Canary, waves, and the way back, over an in-memory fleet; a crash at any step loses nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fakes.keys import MODELS
from fakes.rollouts import MemoryStore, Plant, candidate
from fakes.trail import MemoryEntries
from hypothesis import given
from hypothesis import strategies as st

from registry.audit import AuditTrail
from registry.errors import RegistryError, RolloutBusy
from registry.policy import RolloutPolicy, read_policy
from registry.rollout.claim import begin, queue_next
from registry.rollout.conductor import Conductor
from registry.rollout.job_ids import JobIds
from registry.rollout.manifests import Manifests
from registry.rollout.model import TERMINAL_STATES, Rollout
from registry.rollout.stale_devices import StaleDevices
from registry.rollout.waves import WaveJobs

POLICY = RolloutPolicy(canary=0.1, waves=(0.5, 1.0), wave_seconds=100.0)


class Drive:
    """A store, a plant, and what moves rollouts on."""

    def __init__(self, plant: Plant) -> None:
        self.store, self.plant, self.now, self.ended = MemoryStore(), plant, 0.0, []
        self.rejected: set[str] = set()
        jobs = WaveJobs(plant, JobIds("mledgeops"))
        manifests = Manifests(MODELS.sign, lambda key: f"https://{key}")
        self.stale_devices = StaleDevices(
            self.store, jobs, plant, manifests, AuditTrail(MemoryEntries()), lambda: self.now
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
    calm = Drive(Plant(10))
    done = calm.to_end(calm.begin(1, policy=policy))
    assert done.state == "Succeeded"
    assert done.ended_at - done.started_at >= 50


def test_one_rollout_at_a_time_and_the_next_waits_its_turn() -> None:
    drive = Drive(Plant(5))
    first = drive.begin(1)
    with pytest.raises(RolloutBusy, match="Rollout 1 of wind/1 to fleet f is under way"):
        drive.begin(2)
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


def test_devices_that_come_later_get_what_the_fleet_uses() -> None:
    drive = Drive(Plant(6, away={5}, dislike={"wind/2": {0}}))
    drive.to_end(drive.begin(1), step=60.0)
    drive.to_end(
        drive.begin(2, policy=msgspec.structs.replace(POLICY, abort=0.5, success=0.5)), step=60.0
    )
    assert drive.stale_devices.find("f") == []  # one refused it, one is away: both were asked
    drive.plant.models |= {"new1": "", "new2": ""}
    assert drive.stale_devices.find("f") == ["new1", "new2"]
    jobs = drive.stale_devices.update("f", ["new1", "new2"])
    assert len(jobs) == 2
    assert not any(drive.stale_devices.is_waiting(job) for job in jobs)
    assert {drive.plant.models["new1"], drive.plant.models["new2"]} == {"wind/2"}
    assert drive.stale_devices.find("f") == []
    drive.plant.models["d001"] = ""  # its card was replaced
    assert drive.stale_devices.find("f") == ["d001"]
    drive.stale_devices.update("f", ["d001"])
    manifests = list(drive.plant.documents.values())
    late = manifests[-1].sequence
    drive.to_end(drive.begin(3), step=60.0)
    assert late < list(drive.plant.documents.values())[-1].sequence  # the next rollout counts on
    busy = drive.begin(4)
    assert drive.stale_devices.find("f") == []
    assert drive.stale_devices.update("f", ["new1"]) == []
    drive.to_end(busy, step=60.0)


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[rollout]\nwaves = [0.5]", "the last must be 1"),
        ("[rollout]\nwaves = [0.9, 0.5, 1.0]", "must grow"),
        ("[rollout]\ncanary = 2", "canary"),
        ("[rollout]\ncanery = 0.1", "canery"),
        ("gates = ", "not valid TOML"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(tmp_path: Any, text: str, message: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(RegistryError, match=message):
        read_policy(file)
    with pytest.raises(RegistryError, match="cannot be read"):
        read_policy(tmp_path / "none.toml")
