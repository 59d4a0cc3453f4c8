"""The highest manifest is remembered, and an expired one is not followed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fakes.keys import a_manifest, document, trust
from fakes.objects import FileObjects

from edge.identity.trust import Trust
from edge.protocol.signed import Manifest, manifest_text, parse_manifest
from edge.serving.followed import Followed, FollowedFile, identity
from edge.serving.model_store import ModelRefused, ModelStore


def install(folder: Path, manifest: Manifest, passed: float = 0.0) -> None:
    async def test(*_: object) -> float:
        return 0.9

    trust(folder / "trust.json")
    objects = FileObjects(folder)
    objects.data["url"] = b"weights"
    store = ModelStore(
        folder / "models", objects, Trust.of(folder / "trust.json"), "f", passed=lambda: passed
    )
    asyncio.run(store.install(document(manifest), test))


def test_a_file_is_read_as_it_was_kept_and_a_damaged_one_is_told_from_none(tmp_path: Path) -> None:
    file = FollowedFile(tmp_path)
    assert file.read() == Followed()
    file.keep(Followed(sequence=7, manifest="m", issued=3.0, expires=True))
    assert FollowedFile(tmp_path).read() == Followed(
        sequence=7, manifest="m", issued=3.0, expires=True
    )
    (tmp_path / "followed.json").write_bytes(b"")
    assert file.read() is None


def test_a_manifest_that_is_signed_anew_says_the_same() -> None:
    again = a_manifest(issued=5.0, expires=9.0)
    assert identity(again) == identity(a_manifest())
    assert identity(a_manifest(forced=True)) != identity(a_manifest())
    assert parse_manifest(manifest_text(again).decode()) == again
    assert b"issued" not in manifest_text(a_manifest()), "agents of 0.4 read it"


def test_an_expired_manifest_is_refused_whatever_the_devices_clock_says(tmp_path: Path) -> None:
    install(tmp_path, a_manifest(sequence=1, issued=100.0, expires=200.0), passed=150.0)
    with pytest.raises(ModelRefused, match="expired"):
        install(tmp_path, a_manifest(sequence=2, issued=100.0, expires=200.0), passed=201.0)
    install(tmp_path, a_manifest(sequence=3, issued=300.0, expires=400.0))
    with pytest.raises(ModelRefused, match="expired"):
        install(tmp_path, a_manifest(sequence=4, issued=100.0, expires=200.0))
    with pytest.raises(ModelRefused, match="no time at which it expires"):
        install(tmp_path, a_manifest(sequence=5))
