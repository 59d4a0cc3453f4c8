"""What a ServerApp writes into its folder is kept, within bounds."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.apps import write_app

from fl_runtime.server.apps import written_files
from fl_runtime.server.apps.written_files import working_folder


def test_new_and_changed_files_are_kept_and_the_apps_own_are_not(tmp_path: Path) -> None:
    app = write_app(tmp_path / "writing_app")
    (app.folder / "notes.txt").write_text("old")
    with working_folder(app) as files:
        Path("notes.txt").write_text("longer")
        Path("plots").mkdir()
        Path("plots/curve.png").write_bytes(b"png")
        Path("link").symlink_to("/etc/hostname")
        Path("plots/__pycache__").mkdir()
        Path("plots/__pycache__/x.pyc").write_bytes(b"x")
        assert files == {}
    assert files == {"notes.txt": b"longer", "plots/curve.png": b"png"}
    assert Path.cwd() != app.folder


def test_there_are_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written_files, "FILES_LIMIT", 2)
    monkeypatch.setattr(written_files, "BYTES_LIMIT", 10)
    with working_folder(write_app(tmp_path / "large_app")) as files:
        for name, size in (("a", 8), ("b", 9), ("c", 2), ("d", 0)):
            Path(name).write_bytes(b"x" * size)
    assert list(files) == ["a", "c"]


def test_an_app_without_a_server_app_writes_nothing(tmp_path: Path) -> None:
    here = Path.cwd()
    with working_folder(write_app(tmp_path / "no_server_app", server="")) as files:
        assert Path.cwd() == here
    assert files == {}
