"""Manifests: signed, numbered, and the way back forced."""

from __future__ import annotations

import msgspec
from fakes.keys import MODELS
from fakes.rollout_drive import Drive
from fakes.rollouts import Plant, candidate

from edge.protocol.signed import Manifest, SignedManifest, parse_manifest
from registry.rollout.manifests import DAY, Manifests, period_of

MANIFESTS = Manifests(MODELS.sign, lambda key: f"https://{key}", lambda _: None)


def read(document: SignedManifest) -> Manifest:
    assert document.url == "https://k"
    assert document.signature
    return parse_manifest(document.manifest)


def test_a_switch_compares_and_a_rollback_does_not() -> None:
    drive = Drive(Plant(2))
    drive.to_end(drive.begin(1))
    rollout = drive.begin(2)
    there, back = read(MANIFESTS.switch(rollout, 0.0)), read(MANIFESTS.rollback(rollout))
    assert (there.model_version, there.forced, there.remove) == ("wind/2", False, False)
    assert (back.model_version, back.forced, back.remove) == ("wind/1", True, False)
    assert back.sequence == there.sequence + 1
    assert there.tolerance == rollout.policy.tolerance


def test_where_there_was_no_model_a_rollback_removes_the_new_one() -> None:
    back = read(MANIFESTS.rollback(Drive(Plant(2)).begin(1)))
    assert (back.model_version, back.remove) == ("wind/1", True)


def test_an_update_of_a_stale_device_comes_before_the_next_rollout() -> None:
    drive = Drive(Plant(2))
    last = drive.to_end(drive.begin(1))
    current = drive.store.current("f")
    update = read(MANIFESTS.update(candidate(1), last, current.sequence))
    assert last.sequence < update.sequence < drive.begin(2).sequence
    assert not update.forced


def test_a_rollout_that_is_forced_says_so() -> None:
    forced = msgspec.structs.replace(Drive(Plant(1)).begin(1), forced=True)
    assert read(MANIFESTS.switch(forced, 0.0)).forced


def test_manifests_expire_unless_the_policy_says_never() -> None:
    drive = Drive(Plant(2))
    last = drive.to_end(drive.begin(1))
    assert read(MANIFESTS.switch(last, 5.0)).expires == 5.0 + 30 * DAY
    assert read(MANIFESTS.rollback(last)).expires > 30 * DAY
    late = read(MANIFESTS.update(last.candidate, last, 9, period_of(last, 40 * DAY)))
    assert 40 * DAY + 20 * DAY <= late.expires <= 40 * DAY + 60 * DAY
    slow = msgspec.structs.replace(last.policy, wave_seconds=40 * DAY)
    slowly = msgspec.structs.replace(last, policy=slow)
    assert read(MANIFESTS.switch(slowly, 0.0)).expires > 40 * DAY, "a wave is over by then"
    never = msgspec.structs.replace(last.policy, manifest_days=0)
    for document in (
        MANIFESTS.switch(msgspec.structs.replace(last, policy=never), 5.0),
        MANIFESTS.update(last.candidate, msgspec.structs.replace(last, policy=never), 9),
    ):
        assert read(document).expires == 0.0
        assert "expires" not in document.manifest, "agents of 0.4 refuse a field they do not know"
