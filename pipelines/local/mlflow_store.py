"""MLflow's database of a local cloud, looked at before MLflow opens it and while it is used.

MLflow repeats each call for minutes when its database is damaged, or held by another program, and
a run waits for it: both are told in a sentence instead.
"""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pipelines.local.forks.client import ForkedProcess
from pipelines.local.forks.server import ForkRequest
from pipelines.local.home import LocalCloudError

HELD_SECONDS = 8.0
"""A database that is in use for longer is held: MLflow's own writes take milliseconds."""
LOOK_SECONDS = 2.0
BUSY = "busy"
MODULE = "pipelines.local.mlflow_store"


def create_store(
    environment: Mapping[str, str], forks: str
) -> subprocess.Popen[bytes] | ForkedProcess:
    """Start the making of MLflow's database. Several processes at once could not make it, and it
    takes seconds.
    """
    if forks:
        request = ForkRequest(module=MODULE, environment=dict(environment))
        return ForkedProcess(forks, request, piped=(False, False, False), text=False)
    return subprocess.Popen([sys.executable, "-m", MODULE], env=environment)


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
    # A path in a URI: https://www.sqlite.org/uri.html
    where = f"{file.resolve().as_uri()}?mode={mode}"
    connection = sqlite3.connect(where, uri=True, timeout=seconds, isolation_level=None)
    try:
        row = connection.execute(query).fetchone()
    except sqlite3.OperationalError as error:
        return BUSY if error.sqlite_errorcode == sqlite3.SQLITE_BUSY else "ok"
    except sqlite3.DatabaseError as error:
        return str(error)
    finally:
        connection.close()  # which also ends the transaction
    return str(row[0]) if row else "ok"


def _damaged(file: Path, found: str) -> str:
    return (
        f"MLflow's database {file} is damaged ({found.splitlines()[-1]}): put a copy of it in "
        "its place, or move it away to begin a new one without the runs and versions so far."
    )


if __name__ == "__main__":
    from mlflow import MlflowClient

    MlflowClient().search_experiments(max_results=1)
