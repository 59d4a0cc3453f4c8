"""MLflow's database of a local cloud, looked at before MLflow opens it and while it is used.

MLflow repeats each call for minutes when its database is damaged, or held by another program, and
a run waits for it: both are told in a sentence instead.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from edge.files import replace_atomically
from pipelines.local.forks.client import ForkedProcess
from pipelines.local.forks.server import ForkRequest
from pipelines.local.home import LocalCloudError

HELD_SECONDS = 8.0
"""A database that is in use for longer is held: MLflow's own writes take milliseconds."""
LOOK_SECONDS = 2.0
BUSY = "busy"
MODULE = "pipelines.local.mlflow_store"


def create_store(
    environment: Mapping[str, str], forks: str, file: Path
) -> subprocess.Popen[bytes] | ForkedProcess:
    """Start the making of MLflow's database. Several processes at once could not make it, and it
    takes seconds.
    """
    arguments = [str(file)]
    if forks:
        request = ForkRequest(module=MODULE, arguments=arguments, environment=dict(environment))
        return ForkedProcess(forks, request, piped=(False, False, False), text=False)
    return subprocess.Popen([sys.executable, "-m", MODULE, *arguments], env=environment)


def make_database(file: Path) -> None:
    """Make MLflow's database, whole or not at all, unless there is a finished one.

    MLflow makes its tables one after the other, and fails for ever on a database in which it was
    interrupted. The caller is the only one that makes it.
    """
    if is_finished(file):
        return
    from mlflow import MlflowClient

    part = file.with_name(f".{file.name}.part")
    for left in (part, part.with_name(f"{part.name}-journal")):
        left.unlink(missing_ok=True)
    MlflowClient(f"sqlite:///{part}").search_experiments(max_results=1)
    file.with_name(f"{file.name}-journal").unlink(missing_ok=True)
    replace_atomically(part, file, durable=True)


def is_finished(file: Path) -> bool:
    """Whether a database is there and MLflow has finished making it: its last act is to add the
    first experiment.
    """
    if not file.is_file():
        return False
    with contextlib.closing(_opened(file, "ro", HELD_SECONDS)) as connection:
        try:
            return bool(connection.execute("SELECT count(*) FROM experiments").fetchone()[0])
        except sqlite3.OperationalError as error:
            return error.sqlite_errorcode == sqlite3.SQLITE_BUSY  # else there is no such table


def check_database(file: Path, *, free: bool = False) -> None:
    """Check that MLflow's SQLite file can be used; one that does not exist yet is fine.

    Args:
        file: The database.
        free: Whether it must also be free within :data:`HELD_SECONDS`.

    Raises:
        LocalCloudError: It is damaged, or held.

    """
    found = _look(file, "ro", "PRAGMA quick_check(1)", 1.0)
    if found not in ("ok", BUSY):
        raise LocalCloudError(_damaged(file, found))
    if free and _look(file, "rw", "BEGIN IMMEDIATE", HELD_SECONDS) == BUSY:
        raise LocalCloudError(
            f"MLflow's database {file} is held by another program: end that program, or try again "
            "when it is done."
        )


class StoreWatch:
    """Says when a run's database is damaged or held by another program, and when it is free again.

    Args:
        file: The database.
        tell: Takes each sentence.
        clock: Seconds.

    """

    def __init__(
        self, file: Path, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._file = file
        self._tell = tell
        self._clock = clock
        self._looked = -math.inf
        self._free_at = clock()
        self._told = ""

    def look(self) -> None:
        """Look, at most every :data:`LOOK_SECONDS`."""
        now = self._clock()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked, found = now, _look(self._file, "rw", "BEGIN IMMEDIATE", 0.0)
        if found == BUSY and now - self._free_at < HELD_SECONDS:
            return
        if found == "ok":
            self._free_at = now
        if found != self._told and (found != "ok" or self._told):
            self._tell(self._sentence(found))
            self._told = found

    def _sentence(self, found: str) -> str:
        if found == BUSY:
            return (
                f"MLflow's database {self._file} is held by another program: rounds go on, and the "
                "run ends when it is free, or fails after ten minutes of waiting."
            )
        return f"{self._file} is free again." if found == "ok" else _damaged(self._file, found)


def _look(file: Path, mode: str, query: str, seconds: float) -> str:
    """``ok``, :data:`BUSY`, or what is wrong. A file that is not there, or that cannot be written
    by us, is ok here.
    """
    if not file.is_file():
        return "ok"
    connection = _opened(file, mode, seconds)
    try:
        row = connection.execute(query).fetchone()
    except sqlite3.OperationalError as error:
        return BUSY if error.sqlite_errorcode == sqlite3.SQLITE_BUSY else "ok"
    except sqlite3.DatabaseError as error:
        return str(error)
    finally:
        connection.close()  # which also ends the transaction
    return str(row[0]) if row else "ok"


def _opened(file: Path, mode: str, seconds: float) -> sqlite3.Connection:
    # A path in a URI: https://www.sqlite.org/uri.html
    where = f"{file.resolve().as_uri()}?mode={mode}"
    return sqlite3.connect(where, uri=True, timeout=seconds, isolation_level=None)


def _damaged(file: Path, found: str) -> str:
    return (
        f"MLflow's database {file} is damaged ({found.splitlines()[-1]}): put a copy of it in "
        "its place, or move it away to begin a new one without the runs and versions so far."
    )


if __name__ == "__main__":
    make_database(Path(sys.argv[1]))
