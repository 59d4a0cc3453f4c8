"""A record of every authorisation decision on a role's or a device's call, once each.

The audit of least privilege reads it. Each line is ``{"principal", "action", "resource",
"decision"}``, or ``{"session", "principal"}``, which says whose access key that is.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

from pipelines.local.home import ACCOUNT

ROOT = f"arn:aws:iam::{ACCOUNT}:root"


class CallLog:
    """An append-only file of JSON lines that several processes write to."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._seen = set(file.read_text().splitlines()) if file.is_file() else set()

    def write(self, **fields: str) -> None:
        """Append a line, unless this process knows that it is there already."""
        line = json.dumps(fields)
        with self._lock:
            if line in self._seen:
                return
            self._seen.add(line)
            with self._file.open("a") as file:
                file.write(line + "\n")

    def principal(self, access_key: str) -> str | None:
        """ARN of the role session that an access key belongs to; None for the account's own key."""
        return next(
            (
                line["principal"]
                for line in reversed(list(self.lines()))
                if line.get("session") == access_key
            ),
            None,
        )

    def identity(self, access_key: str) -> str:
        """ARN of whoever an access key belongs to; the account's own key is root's."""
        return self.principal(access_key) or ROOT

    def lines(self) -> Iterator[dict[str, str]]:
        """All lines, oldest first."""
        if self._file.is_file():
            yield from (json.loads(line) for line in self._file.read_text().splitlines())


def role_of(principal: str) -> str:
    """A role's name from its ARN or from a session's ARN; empty for other principals."""
    kind, _, rest = principal.rpartition(":")[2].partition("/")
    return rest.split("/")[0] if kind in ("role", "assumed-role") else ""
