"""A model is installed only by a signed manifest, after a test on local data, in one step."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes.keys import MODELS, Key, a_manifest, document, trust
from fakes.objects import FileObjects

from edge.identity.trust import Trust
from edge.protocol.records import (
    digest,
)
from edge.protocol.signed import Manifest, SignedManifest
from edge.serving.model_store import ModelRefused, ModelStore

GOOD, BAD = b"good weights", b"bad weights"
VALUES = {
    digest(GOOD): 0.9,
    digest(BAD): 0.2,
    digest(b"better"): 0.95,
    digest(b"a little worse"): 0.88,
    digest(b"broken"): float("nan"),
}


class Store:
    """A device's models; tests are looked up by the weights' digest."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        trust(folder / "trust.json")
        (folder / "cache").mkdir(exist_ok=True)
        self.objects = FileObjects(folder / "cache")
        self.store = ModelStore(
            folder / "models", self.objects, Trust.of(folder / "trust.json"), "f"
        )

    def install(self, weights: bytes, signed: SignedManifest) -> Any:
        self.objects.data["url"] = weights

        async def test(manifest: Manifest, file: Path) -> float:
            return VALUES[digest(file.read_bytes())]

        return asyncio.run(self.store.install(signed, test))

    @property
    def version(self) -> str:
        active = self.store.active().manifest
        return active.model_version if active else ""


def test_a_model_that_is_better_or_little_worse_is_taken_and_a_bad_one_is_not(
    tmp_path: Path,
) -> None:
    device = Store(tmp_path)
    assert device.install(GOOD, document(a_manifest(GOOD, 1))).new == 0.9
    done = device.install(b"a little worse", document(a_manifest(b"a little worse", 2)))
    assert (done.state, done.new, done.old) == ("active", 0.88, 0.9)
    with pytest.raises(
        ModelRefused, match=r"accuracy is 0.2 with the new model and 0.88 with the one in use"
    ) as refused:
        device.install(BAD, document(a_manifest(BAD, 3)))
    assert refused.value.code == "worse"
    assert device.version == "wind/2", "the model in use stays"
    with pytest.raises(ModelRefused, match="nan"):
        device.install(b"broken", document(a_manifest(b"broken", 4)))
    low = a_manifest(b"better", 5, goal="minimize", metric="loss")
    with pytest.raises(ModelRefused, match=r"loss is 0.95"):
        device.install(b"better", document(low))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (
            lambda s: msgspec.structs.replace(s, manifest=s.manifest.replace("wind/7", "wind/8")),
            "unsigned",
        ),
        (lambda s: msgspec.structs.replace(s, manifest=s.manifest + " "), "unsigned"),
        (lambda s: msgspec.structs.replace(s, signature=""), "unsigned"),
        (lambda s: document(a_manifest(GOOD, 7), key=Key()), "unsigned"),
        (lambda s: document(a_manifest(GOOD, 7, fleet="other")), "foreign"),
        (lambda s: document(a_manifest(GOOD, 2)), "outdated"),
        (lambda s: document(a_manifest(GOOD, 5)), "outdated"),
        (lambda s: document(a_manifest(GOOD, 7, digest="e" * 64)), "bad-digest"),
        (
            lambda s: SignedManifest(manifest="{}", signature=MODELS.sign(b"{}"), url="url"),
            "malformed",
        ),
    ],
)
def test_what_is_not_signed_meant_and_new_is_not_run(
    tmp_path: Path, change: Any, code: str
) -> None:
    device = Store(tmp_path)
    device.install(b"better", document(a_manifest(b"better", 5)))
    with pytest.raises(ModelRefused) as refused:
        device.install(GOOD, change(document(a_manifest(GOOD, 7))))
    assert refused.value.code == code
    assert device.version == "wind/5"


def test_a_way_back_needs_no_download_and_no_test_and_the_same_manifest_may_come_twice(
    tmp_path: Path,
) -> None:
    device = Store(tmp_path)
    device.install(GOOD, document(a_manifest(GOOD, 1)))
    device.install(b"better", document(a_manifest(b"better", 2)))
    fetched = len(device.objects.fetched)
    back = document(a_manifest(GOOD, 3, model_version="wind/1", forced=True))
    for _ in range(2):
        assert device.install(b"", back).model_version == "wind/1"
    assert len(device.objects.fetched) == fetched
    assert device.install(b"", document(a_manifest(GOOD, 4, remove=True))).state == "removed"
    assert device.version == ""
    with pytest.raises(ModelRefused, match="has followed 4"):
        device.install(b"better", document(a_manifest(b"better", 2)))


def test_a_damaged_pointer_is_a_device_without_a_model_and_old_models_go(tmp_path: Path) -> None:
    device = Store(tmp_path)
    for number, weights in enumerate((GOOD, b"better", GOOD, b"better", b"a little worse"), 1):
        device.install(weights, document(a_manifest(weights, number, tolerance=0.5)))
    for number in range(6, 12):
        VALUES[digest(bytes([number]))] = 0.9
        device.install(bytes([number]), document(a_manifest(bytes([number]), number)))
    kept = [file for file in (tmp_path / "models").iterdir() if len(file.name) == 64]
    assert len(kept) == 3
    (tmp_path / "models" / "active.json").write_bytes(b'{"manifest"')
    assert device.version == ""
