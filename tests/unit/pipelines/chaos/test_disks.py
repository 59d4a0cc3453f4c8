"""A device's disk as an ext4 image: a cut loses what was not synced, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.files import write_atomically
from pipelines.chaos.devices import disk as disks
from pipelines.chaos.devices.disk import ImageDisk
from pipelines.chaos.mounts import command


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImageDisk]:
    monkeypatch.setattr(disks, "IMAGE_BYTES", 8 * 2**20)
    made = ImageDisk(tmp_path / "image.ext4", tmp_path / "disk")
    if refused := "not root" if os.geteuid() else made.make():
        pytest.skip(f"an ext4 image cannot be mounted here: {refused}")
    yield made
    made.unmount()


def test_a_cut_loses_what_was_not_synced_and_nothing_else(disk: ImageDisk, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    (folder / "old").write_bytes(b"old")
    disk.sync()
    write_atomically(folder / "durable", b"durable", durable=True)
    (folder / "loose").write_bytes(b"loose")
    assert disk.cut_power() == ""
    assert (folder / "old").read_bytes() == b"old"
    assert (folder / "durable").read_bytes() == b"durable"
    assert not (folder / "loose").exists() or (folder / "loose").read_bytes() == b""


def test_a_folder_that_is_in_use_is_not_cut_and_says_why(
    disk: ImageDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "BUSY_SECONDS", 0.0)
    with (tmp_path / "disk" / "open").open("wb"):
        assert "busy" in disk.cut_power()


def test_a_command_that_fails_says_why() -> None:
    assert "nowhere" in command("ls", "/nowhere")
    assert command("false") == "exit 1"
    assert command("true") == ""
