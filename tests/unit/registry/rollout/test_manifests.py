"""Manifests: signed, numbered, and the way back forced."""

from __future__ import annotations

import msgspec
from fakes.keys import MODELS
from fakes.rollout_drive import Drive
from fakes.rollouts import Plant, candidate

from edge.protocol.signed import Manifest, SignedManifest, parse_manifest
from registry.rollout.manifests import Manifests

MANIFESTS = Manifests(MODELS.sign, lambda key: f"https://{key}")


def read(document: SignedManifest) -> Manifest:
    assert document.url == "https://k"
    assert document.signature
    return parse_manifest(document.manifest)


def test_a_switch_compares_and_a_rollback_does_not() -> None:
    drive = Drive(Plant(2))
    drive.to_end(drive.begin(1))
    rollout = drive.begin(2)
    there, back = read(MANIFESTS.switch(rollout)), read(MANIFESTS.rollback(rollout))
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
    assert read(MANIFESTS.switch(forced)).forced
