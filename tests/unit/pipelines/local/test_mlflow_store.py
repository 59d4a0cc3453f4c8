"""A damaged MLflow database is told in one sentence, before anything waits for it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from support.commands import complaint

from pipelines.local import cloud as local
from pipelines.local.home import Home, LocalCloudError
from pipelines.local.mlflow_store import check_database


@pytest.fixture
def database(tmp_path: Path) -> Path:
    file = tmp_path / "mlflow.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE runs (name TEXT)")
        connection.executemany("INSERT INTO runs VALUES (?)", [("x" * 500,)] * 200)
    connection.close()
    return file


def damage(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at : at + 4096] = b"\xff" * 4096
    file.write_bytes(content)


def test_a_whole_a_new_and_a_locked_database_are_fine(database: Path, tmp_path: Path) -> None:
    check_database(database)
    check_database(tmp_path / "none.db")
    (tmp_path / "empty.db").touch()
    check_database(tmp_path / "empty.db")
    with sqlite3.connect(database) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        check_database(database)
    holder.close()


@pytest.mark.parametrize("at", [0, 8192], ids=["header", "page"])
def test_damage_is_told(database: Path, at: int) -> None:
    damage(database, at)
    with pytest.raises(LocalCloudError, match=r"mlflow.db is damaged .*: put a copy"):
        check_database(database)


def test_commands_say_so_at_once_and_no_cloud_is_started(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(database, 0)
    for command in (["runs"], ["models"], ["reconcile"], ["fleet"], ["local", "up"]):
        assert "is damaged" in complaint(*command, home=tmp_path)
    monkeypatch.setattr(local.LocalCloud, "attach", lambda home: pytest.fail("asked of the cloud"))
    with pytest.raises(LocalCloudError, match="damaged"), local.local_cloud(Home(tmp_path)):
        pass
