"""A damaged MLflow database is told in one sentence, before anything waits for it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import complaint

from pipelines.local import cloud as local
from pipelines.local import mlflow_store
from pipelines.local.home import Home, LocalCloudError
from pipelines.local.mlflow_store import StoreWatch, check_database, is_finished, make_database


@pytest.fixture
def database(tmp_path: Path) -> Path:
    file = tmp_path / "mlflow.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE runs (name TEXT)")
        connection.executemany("INSERT INTO runs VALUES (?)", [("x" * 500,)] * 200)
    connection.close()
    return file


@contextlib.contextmanager
def held(file: Path) -> Iterator[None]:
    holder = sqlite3.connect(file)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        holder.rollback()
        holder.close()


def damage(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at : at + 4096] = b"\xff" * 4096
    file.write_bytes(content)


def test_a_whole_a_new_and_a_locked_database_are_fine(database: Path, tmp_path: Path) -> None:
    check_database(database)
    check_database(tmp_path / "none.db")
    (tmp_path / "empty.db").touch()
    check_database(tmp_path / "empty.db")
    with held(database):
        check_database(database)


def test_a_cloud_does_not_start_on_a_database_that_another_program_holds(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_store, "HELD_SECONDS", 0.05)
    with held(database):
        for command in (["runs"], ["models"], ["local", "up"]):
            assert "is held by another program: end" in complaint(*command, home=tmp_path)
    check_database(database, free=True)


@pytest.mark.parametrize("left", ["nothing", "a part", "half a database"])
def test_a_database_is_made_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """MLflow's own tables take seconds: here its client makes two, and is interrupted between."""
    file, interrupted = tmp_path / "mlflow.db", [True]

    class Client:
        def __init__(self, uri: str) -> None:
            self._file = uri.removeprefix("sqlite:///")

        def search_experiments(self, **_: int) -> None:
            with contextlib.closing(sqlite3.connect(self._file, isolation_level=None)) as made:
                made.execute("CREATE TABLE experiments (id INT)")
                if interrupted.pop():
                    raise KeyboardInterrupt
                made.execute("INSERT INTO experiments VALUES (0)")

    monkeypatch.setattr("mlflow.MlflowClient", Client)
    if left != "nothing":
        with pytest.raises(KeyboardInterrupt):
            make_database(file)
        assert not file.exists()
    if left == "half a database":  # of an earlier version
        (tmp_path / ".mlflow.db.part").rename(file)
        assert not is_finished(file)
    interrupted[:] = [False]
    make_database(file)
    assert is_finished(file)
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    make_database(file)
    assert interrupted == [], "a finished one is left alone"


def test_a_run_says_once_that_its_database_is_held_damaged_or_free_again(database: Path) -> None:
    told: list[str] = []
    now = [0.0]
    watch = StoreWatch(database, told.append, lambda: now[0])

    def look(until: float) -> list[str]:
        while now[0] < until:
            now[0] += 1.0
            watch.look()
        return [told.pop() for _ in list(told)]

    assert look(10.0) == []
    with held(database):
        assert look(15.0) == [], "for a moment it is in use by MLflow itself"
        (sentence,) = look(60.0)
        assert "is held by another program: rounds go on" in sentence
    assert look(70.0) == [f"{database} is free again."]
    damage(database, 0)
    (sentence,) = look(80.0)
    assert "is damaged (file is not a database): put a copy" in sentence


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
