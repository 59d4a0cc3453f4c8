"""A journal of the registry's changing calls, replayed at the next start: moto keeps nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from edge.logs import event

logger = logging.getLogger(__name__)

ACTIONS = (
    "create_model_package_group",
    "create_model_package",
    "update_model_package",
    "delete_model_package",
    "create_pipeline",
    "update_pipeline",
    "delete_pipeline",
)
"""The calls that are kept."""


class Journal:
    """An append-only file with one JSON line for each call."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._unwritten: list[bytes] = []
        """Lines that the disk had no room for: they go before the next one. An update of a pipeline
        whose creation was left out would be refused at every start from then on.
        """
        self.replaying = False
        """Calls are being repeated: they are not written again, and emit no events."""
        self.replayed_for = ""
        """ARN of who made the call that is being repeated; empty for calls of 0.4 and earlier."""

    def write(self, action: str, params: dict[str, Any], by: str) -> None:
        """Add a call that succeeded. ``by``: the caller's ARN.

        Raises:
            OSError: The disk is full, say. The line is written with the next one.

        """
        call = {"action": action, "params": params, "time": time.time(), "by": by}
        line = json.dumps(call, default=str)
        with self._lock:
            if not self.replaying:
                self._unwritten.append(f"{line}\n".encode())
                _append(self._file, b"".join(self._unwritten))
                self._unwritten = []

    def replay(self, sagemaker: Any) -> None:
        """Repeat all calls in order, so that packages get the version numbers that they had. A line
        that was cut off, and a call that is refused, are logged and left out.
        """
        if not self._file.is_file():
            return
        self.replaying = True
        for line in self._file.read_bytes().splitlines():
            try:
                entry = json.loads(line)
                given = {key: value for key, value in entry["params"].items() if value is not None}
                self.replayed_for = entry.get("by", "")
                getattr(sagemaker, entry["action"])(**given)
            except (ValueError, KeyError, TypeError, AttributeError, ClientError) as error:
                reason = f"{type(error).__name__}: {error}"[:300]
                event(logger, "call-not-repeated", logging.ERROR, reason=reason)
        self.replaying = False


def _append(file: Path, data: bytes) -> None:
    """Append all of the data or nothing; raises OSError."""
    with file.open("ab", buffering=0) as stream:
        end = stream.tell()
        # What a process that was killed has left of its last line must not spoil this one.
        data = (b"\n" if _is_cut(file) else b"") + data
        try:
            if stream.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        except OSError:
            with contextlib.suppress(OSError):
                stream.truncate(end)
            raise


def _is_cut(file: Path) -> bool:
    """Whether the last line has no end."""
    if not file.is_file() or not file.stat().st_size:
        return False
    with file.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) != b"\n"
