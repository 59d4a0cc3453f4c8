"""Which devices come next, and the jobs that reach them."""

from __future__ import annotations

import msgspec
from fakes.keys import MODELS
from fakes.rollout_drive import POLICY, Drive
from fakes.rollouts import Plant
from hypothesis import given
from hypothesis import strategies as st

from registry.rollout.job_ids import JobIds
from registry.rollout.manifests import Manifests
from registry.rollout.model import DeviceState, Rollout, Wave
from registry.rollout.waves import TARGETS_PER_JOB, WaveJobs, choose_canary, choose_wave


def rollout(number: int = 1, asked: int = 0, **policy: object) -> Rollout:
    drive = Drive(Plant(1))
    begun = drive.begin(1, policy=msgspec.structs.replace(POLICY, **policy))
    whole = msgspec.structs.replace(begun.policy, waves=(1.0,))
    order = choose_wave(msgspec.structs.replace(begun, number=number, policy=whole), fleet(20))
    devices = order[:asked]
    wave = Wave(devices=devices, jobs=[], started_at=0.0)
    return msgspec.structs.replace(begun, number=number, waves=[wave] if asked else [])


def fleet(count: int, offline: int = 0) -> dict[str, DeviceState]:
    return {f"d{n:03d}": DeviceState("", online=n >= offline) for n in range(count)}


@given(st.integers(1, 200), st.floats(0, 1), st.integers(1, 10))
def test_the_canary_has_its_share_and_its_least_number(
    count: int, share: float, least: int
) -> None:
    devices = choose_canary(rollout(canary=share, canary_devices=least), fleet(count))
    assert len(set(devices)) == len(devices) <= count
    assert len(devices) >= min(count, least)
    assert len(devices) >= share * count


def test_online_devices_come_first_in_the_canary() -> None:
    devices = choose_canary(rollout(canary_devices=3), fleet(20, offline=17))
    assert set(devices) == {"d017", "d018", "d019"}


def test_waves_reach_each_share_once_and_then_nobody() -> None:
    assert len(choose_wave(rollout(asked=2), fleet(20))) == 8
    assert len(choose_wave(rollout(asked=10), fleet(20))) == 10
    assert choose_wave(rollout(asked=20), fleet(20)) == []


def test_the_order_differs_between_rollouts_and_is_kept_within_one() -> None:
    orders = [choose_wave(rollout(number), fleet(20)) for number in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_a_wave_is_planned_before_its_jobs_exist_and_created_in_batches() -> None:
    plant = Plant(250, away=set(range(250)))
    jobs = WaveJobs(plant, JobIds("mledgeops"))
    begun = rollout()
    wave = jobs.plan(begun, "w0", list(plant.models), now=5.0)
    assert (len(wave.jobs), wave.started_at, plant.jobs) == (3, 5.0, {})
    document = Manifests(MODELS.sign, str, lambda _: None).switch(begun, 0.0)
    missing: list[str] = []
    jobs.answers(wave, lambda: missing.append("created"))
    for _ in range(2):
        jobs.create(wave, document)
    assert missing == ["created"]
    sizes = [len(plant.jobs[job]) for job in wave.jobs]
    assert sizes == [TARGETS_PER_JOB, TARGETS_PER_JOB, 50]
    assert {answer.status for answer in jobs.answers(wave).values()} == {"QUEUED"}
    jobs.cancel([wave])
    assert {answer.status for answer in jobs.answers(wave).values()} == {"CANCELED"}


def test_a_share_that_lacks_one_device_is_filled_by_one() -> None:
    assert len(choose_wave(rollout(asked=9), fleet(20))) == 1
