"""Rollouts as they are stored: names stay readable by other releases."""

from __future__ import annotations

import msgspec
from fakes.rollout_drive import Drive
from fakes.rollouts import Plant

from registry.rollout.model import FleetRecord, Rollout

MADE_BY_0_4 = b"""{"fleet":"plant","number":3,"candidate":{"fleet":"plant","model_version":"x/2",
"digest":"d","size":9,"app":"a","metric":"loss","goal":"minimize","key":"k"},"previous":null,
"policy":{"canary":0.1,"canary_devices":1,"waves":[0.5,1.0],"success":0.9,"abort":0.2,
"wave_seconds":3600.0,"soak_seconds":0.0,"tolerance":0.05},"by":"ann","reason":"better",
"forced":false,"state":"TurningBack","started_at":1.0,"sequence":5,
"waves":[{"devices":["d0"],"jobs":["mledgeops-plant-3-w0-0"],"started_at":2.0}],
"back":{"devices":["d0"],"jobs":["mledgeops-plant-3-back-0"],"started_at":3.0},
"failures":{"d0":"worse"},"switched":0,"waiting":0,"why":"w","changed_at":2.0,"ended_at":0.0,
"model_version":"x/2"}"""


def test_a_rollout_made_by_0_4_is_read_with_its_job_ids() -> None:
    rollout = msgspec.json.decode(MADE_BY_0_4, type=Rollout)
    assert rollout.name == "plant-3"
    assert list(rollout.jobs()) == ["mledgeops-plant-3-w0-0", "mledgeops-plant-3-back-0"]
    assert (rollout.asked, rollout.answered) == (["d0"], 1)
    written = msgspec.json.decode(msgspec.json.encode(rollout))
    assert written["policy"].pop("manifest_days") == 30, "0.4 did not know the key"
    assert not written.pop("previous_verified"), "0.4 did not know the key"
    assert msgspec.json.decode(MADE_BY_0_4) == written


def test_what_is_stored_is_read_back() -> None:
    drive = Drive(Plant(3))
    rollout = drive.to_end(drive.begin(1))
    assert msgspec.json.decode(msgspec.json.encode(rollout), type=Rollout) == rollout
    record = drive.store.current("f")
    assert msgspec.json.decode(msgspec.json.encode(record), type=FleetRecord) == record
