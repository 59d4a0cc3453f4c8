"""MLflow's database of a local cloud, looked at before MLflow opens it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from pipelines.local.home import LocalCloudError


def check_database(file: Path) -> None:
    """Check that MLflow's SQLite file can be read; one that does not exist yet is fine.

    MLflow would repeat each call for minutes and a run would wait for it: damage does not pass.

    Raises:
        LocalCloudError: It is damaged.

    """
    if not file.is_file():
        return
    # A path in a URI: https://www.sqlite.org/uri.html
    connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=1.0)
    try:
        found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError:
        return  # it is locked: somebody uses it
    except sqlite3.DatabaseError as error:
        found = str(error)
    finally:
        connection.close()
    if found != "ok":
        raise LocalCloudError(
            f"MLflow's database {file} is damaged ({found.splitlines()[-1]}): put a copy of it in "
            "its place, or move it away to begin a new one without the runs and versions so far."
        )
