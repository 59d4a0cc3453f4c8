"""Stale devices get what their fleet runs; those that were asked are not asked again."""

from __future__ import annotations

import msgspec
from fakes.rollout_drive import POLICY, Drive
from fakes.rollouts import Plant

from registry.rollout.job_ids import JobIds
from registry.rollout.manifests import DAY


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


def test_an_update_is_recorded_with_its_jobs() -> None:
    drive = Drive(Plant(2))
    drive.to_end(drive.begin(1))
    drive.plant.models["new"] = ""
    jobs = drive.stale_devices.update("f")
    (entry,) = drive.audit.entries()
    assert (entry.what, entry.subject) == ("catch-up", "wind/1")
    assert (entry.details["devices"], entry.details["jobs"]) == (["new"], jobs)
    assert drive.stale_devices.update("f") == []
    assert len(list(drive.audit.entries())) == 1


def test_a_fleet_without_a_model_has_no_stale_devices() -> None:
    drive = Drive(Plant(2))
    assert drive.stale_devices.find("f") == []
    assert drive.stale_devices.update("f", ["d000"]) == []


def test_a_device_that_was_away_until_its_manifest_expired_gets_a_new_one() -> None:
    drive = Drive(Plant(4, away={3}))
    drive.to_end(drive.begin(1), step=60.0)
    drive.stale_devices.withdraw_expired("f")
    drive.plant.away.clear()
    assert drive.stale_devices.find("f") == [], "its job waits for it"
    drive.now += 31 * DAY
    drive.plant.away.add("d003")
    drive.stale_devices.withdraw_expired("f")
    old = [d for d in drive.plant.documents.values() if d.expires <= drive.now]
    assert len(old) == len(drive.plant.documents)
    drive.plant.away.clear()
    drive.plant.work()
    assert drive.plant.models["d003"] == "", "the old job is gone"
    assert drive.stale_devices.find("f") == ["d003"]
    drive.stale_devices.update("f")
    assert drive.plant.models["d003"] == "wind/1"
    assert list(drive.plant.documents.values())[-1].expires > drive.now + 20 * DAY


def test_a_stale_devices_job_is_signed_anew_each_period_until_it_is_answered() -> None:
    drive = Drive(Plant(2))
    drive.to_end(drive.begin(1))
    drive.plant.models["new"] = ""
    drive.plant.away.add("new")
    (first,) = drive.stale_devices.update("f", ["new"])
    drive.now += 31 * DAY
    drive.plant.away.clear()
    assert drive.stale_devices.find("f") == ["new"]
    (second,) = drive.stale_devices.update("f")
    assert first != second
    assert drive.plant.executions(first)["new"].status == "CANCELED"
    drive.plant.models["new"] = ""
    drive.now += 31 * DAY
    assert drive.stale_devices.find("f") == [], "it has answered"


def test_a_device_whose_manifest_had_expired_when_it_came_is_asked_again() -> None:
    drive = Drive(Plant(6))
    drive.plant.frozen.add("d000")
    lenient = msgspec.structs.replace(POLICY, abort=0.5, success=0.5)
    drive.to_end(drive.begin(1, policy=lenient), step=60.0)
    assert drive.plant.models["d000"] == ""
    assert drive.stale_devices.find("f") == ["d000"], "it did not refuse the model"
    drive.stale_devices.update("f")
    assert drive.stale_devices.find("f") == [], "once in each period"
    drive.plant.frozen.clear()
    drive.now += 31 * DAY
    assert drive.stale_devices.find("f") == ["d000"]
    drive.stale_devices.update("f")
    assert drive.plant.models["d000"] == "wind/1"


def test_after_a_rollback_devices_that_came_meanwhile_get_the_earlier_model() -> None:
    drive = Drive(Plant(4, dislike={"wind/2": {0, 1, 2, 3}}))
    drive.to_end(drive.begin(1))
    assert drive.to_end(drive.begin(2)).state == "RolledBack"
    drive.plant.models["new"] = ""
    assert drive.stale_devices.find("f") == ["new"]
    drive.stale_devices.update("f")
    assert drive.plant.models["new"] == "wind/1"


def test_a_job_is_withdrawn_at_the_moment_when_its_manifest_expires() -> None:
    drive = Drive(Plant(4, away={3}))
    rollout = drive.to_end(drive.begin(1), step=60.0)
    jobs = [job for wave in rollout.waves for job in wave.jobs]
    (waiting,) = filter(drive.stale_devices.is_waiting, jobs)
    expires = drive.plant.documents[waiting].expires
    drive.now = expires - 1.0
    drive.stale_devices.withdraw_expired("f")
    assert drive.stale_devices.is_waiting(waiting)
    drive.now = float(expires)
    drive.stale_devices.withdraw_expired("f")
    assert not drive.stale_devices.is_waiting(waiting)


def test_a_job_that_nobody_has_to_do_waits_for_nobody() -> None:
    drive = Drive(Plant(2))
    assert not drive.stale_devices.is_waiting("no-such-job")
    drive.to_end(drive.begin(1))
    drive.plant.models |= {"new1": "", "new2": ""}
    drive.plant.away.add("new2")
    jobs = drive.stale_devices.update("f", ["new1", "new2"])
    assert [drive.stale_devices.is_waiting(job) for job in jobs] == [False, True]


def test_the_first_job_of_a_device_is_that_of_the_first_period() -> None:
    drive = Drive(Plant(2))
    rollout = drive.to_end(drive.begin(1))
    drive.plant.models["new"] = ""
    ids = JobIds("mledgeops")
    assert drive.stale_devices.update("f") == [ids.stale_device("f", rollout.number, "new", 0)]
