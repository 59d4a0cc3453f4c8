"""Which weights on the disk are whole: those that have the digest in their name."""

from __future__ import annotations

import hashlib
from pathlib import Path

_Stamp = tuple[int, int, int]


class WeightFiles:
    """Checks files by their digest, each once as long as it does not change."""

    def __init__(self) -> None:
        self._checked: dict[str, tuple[_Stamp, bool]] = {}

    def are_known(self, file: Path) -> bool:
        """Whether :meth:`are_whole` answers without reading the file."""
        stamp = _stamp(file)
        return stamp is None or self._checked.get(file.name, (None, False))[0] == stamp

    def are_whole(self, file: Path) -> bool:
        """Whether a file has the digest that is its name. Reads it when it changed."""
        stamp = _stamp(file)
        if stamp is None:
            return False
        known, whole = self._checked.get(file.name, (None, False))
        if known != stamp:
            try:
                with file.open("rb") as stream:
                    whole = hashlib.file_digest(stream, "sha256").hexdigest() == file.name
            except OSError:
                return False
            self._checked[file.name] = (stamp, whole)
        return whole


def _stamp(file: Path) -> _Stamp | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
