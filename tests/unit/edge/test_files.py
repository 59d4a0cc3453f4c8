"""Files are replaced whole or not at all; durable ones are synced first."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import files
from edge.files import (
    link_atomically,
    open_atomically,
    remove_parts,
    replace_atomically,
    write_atomically,
)


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_with_its_mode_and_no_part_stays(tmp_path: Path, durable: bool) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"old")
    write_atomically(file, b"new", durable=durable, mode=0o600)
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["key"]


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_a_stream_becomes_the_file_only_at_its_end(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    file = tmp_path_factory.mktemp("folder") / "file"
    file.write_bytes(b"old")
    with open_atomically(file, durable=False) as stream:
        for piece in pieces:
            stream.write(piece)
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"".join(pieces)


def test_a_failure_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with pytest.raises(KeyError), open_atomically(file, durable=True) as stream:
        stream.write(b"half")
        raise KeyError
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_two_writers_do_not_mix_their_bytes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with (
        open_atomically(file, durable=False) as first,
        open_atomically(file, durable=False) as other,
    ):
        first.write(b"a" * 10_000)
        other.write(b"b" * 10_000)
        first.write(b"a" * 10_000)
    assert set(file.read_bytes()) in ({ord("a")}, {ord("b")})


def test_a_folder_that_does_not_exist_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write_atomically(tmp_path / "none" / "file", b"", durable=True)


def test_content_and_folder_are_synced_around_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut can take is only what was not synced."""
    order: list[str] = []
    synced, rename = files._sync, Path.replace

    def sync(path: Path) -> None:
        order.append("folder" if path.is_dir() else "content")
        synced(path)

    def replace(part: Path, target: Path) -> Path:
        order.append("rename")
        return rename(part, target)

    monkeypatch.setattr(files, "_sync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    write_atomically(tmp_path / "file", b"x", durable=True)
    assert order == ["content", "rename", "folder"]
    order.clear()
    write_atomically(tmp_path / "file", b"y", durable=False)
    assert order == ["rename"]


def test_a_link_is_switched_in_one_step_and_made_when_there_is_none(tmp_path: Path) -> None:
    link = tmp_path / "current"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        link_atomically(link, name, durable=True)
        assert (link.is_symlink(), os.readlink(link)) == (True, name)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a", "b", "current"]


def test_a_link_that_cannot_be_switched_leaves_no_part(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()  # a folder stands in the link's place
    with pytest.raises(OSError, match="directory"):
        link_atomically(tmp_path / "current", "a", durable=True)
    assert [found.name for found in tmp_path.iterdir()] == ["current"]


def test_a_finished_part_takes_the_files_place(tmp_path: Path) -> None:
    part, file = tmp_path / "part", tmp_path / "file"
    part.write_bytes(b"new")
    replace_atomically(part, file, durable=True)
    assert (file.read_bytes(), part.exists()) == (b"new", False)


def test_parts_of_a_power_cut_are_removed_and_nothing_else(tmp_path: Path) -> None:
    with open_atomically(tmp_path / "weights", durable=False):
        left = [found.name for found in tmp_path.iterdir()]
    (tmp_path / left[0]).touch()
    for name in ("weights.part", ".hidden"):
        (tmp_path / name).touch()
    remove_parts(tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == [".hidden", "weights", "weights.part"]
    remove_parts(tmp_path / "none")
