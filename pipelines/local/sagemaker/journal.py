"""A journal of the registry's changing calls, replayed at the next start: moto keeps nothing."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

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
        self.replaying = False
        """Calls are being repeated: they are not written again, and emit no events."""

    def write(self, action: str, params: dict[str, Any]) -> None:
        """Add a call that succeeded."""
        line = json.dumps({"action": action, "params": params, "time": time.time()}, default=str)
        with self._lock:
            if not self.replaying:
                with self._file.open("a") as file:
                    file.write(line + "\n")

    def replay(self, sagemaker: Any) -> None:
        """Repeat all calls in order, so that packages get the version numbers that they had."""
        if not self._file.is_file():
            return
        self.replaying = True
        for line in self._file.read_text().splitlines():
            entry = json.loads(line)
            given = {key: value for key, value in entry["params"].items() if value is not None}
            getattr(sagemaker, entry["action"])(**given)
        self.replaying = False
