"""What a power cut leaves."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edge.files import write_atomically
from pipelines.chaos.simulation.disk import Disk, watched


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    disk = Disk(tmp_path, lambda: None)
    disk.fill({"file": b"old"})
    return disk


def left(disk: Disk) -> set[bytes | None]:
    """What may be left of the file, over many cuts."""
    return {disk.after_power_cut(random.Random(seed)).get("file") for seed in range(50)}


def test_a_durable_write_survives_and_any_other_may_not(disk: Disk) -> None:
    with watched({str(disk.folder): disk}):
        write_atomically(disk.folder / "file", b"new content", durable=True)
        assert left(disk) == {b"new content"}
        write_atomically(disk.folder / "file", b"later", durable=False)
        assert left(disk) == {b"new content", b"later", b"", b"la"}


def test_a_new_file_without_a_sync_may_be_gone_and_a_removed_one_back(disk: Disk) -> None:
    (disk.folder / "file").unlink()
    assert left(disk) == {b"old", None}
    (disk.folder / "made").write_bytes(b"made")
    made = {disk.after_power_cut(random.Random(seed)).get("made") for seed in range(50)}
    assert made == {None, b"", b"ma", b"made"}


def test_a_killed_process_leaves_what_it_wrote(disk: Disk) -> None:
    (disk.folder / "file").write_bytes(b"new")
    assert disk.files() == {"file": b"new"}
