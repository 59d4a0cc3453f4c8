"""An app's ``context.state`` on the device's disk, one file for each run and app.

So it survives the worker's death, the device's reboot, and a change of worker. The file is in the
form of a weights file (:mod:`edge.protocol.records`).
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from pathlib import Path

from edge.files import disk_code, make_folder, open_atomically, remove_parts
from edge.protocol.errors import ProtocolError
from edge.protocol.records import Bounds, Records, decode_records, encode_parts

STATE_LIMIT = 64 * 2**20
"""Bytes of one run's state."""
KEPT_SECONDS = 30 * 86_400.0
"""A state that was not written to for this long is removed."""
KEPT_STATES = 8
"""States kept. The runs that wrote longest ago lose theirs first."""
_SUFFIX = ".state"


def state_file(folder: Path, run: str, app: str) -> Path:
    """Return the file of one run's state."""
    # A digest: two names, put together, could mean two pairs.
    name = hashlib.sha256(f"{run}\n{app}".encode()).hexdigest()[:32]
    return folder / f"{name}{_SUFFIX}"


def sweep_states(folder: Path, now: float) -> None:
    """Remove states that are too old, or too many. ``now``: Unix seconds."""
    remove_parts(folder)
    files = sorted(folder.glob(f"*{_SUFFIX}"), key=_written, reverse=True)
    for number, file in enumerate(files):
        if number >= KEPT_STATES or now - _written(file) > KEPT_SECONDS:
            file.unlink(missing_ok=True)


def _written(file: Path) -> float:
    with contextlib.suppress(OSError):
        return file.stat().st_mtime
    return 0.0


class StoredState:
    """The state of one run, as a worker last read or wrote it.

    Args:
        file: From :func:`state_file`.

    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp: tuple[int, int, int] | None = None
        self._digest = ""

    def is_current(self) -> bool:
        """Whether nobody else has written since: another worker may have served the device."""
        return self._stamp == _stamp(self._file)

    def load(self) -> Records:
        """Return the stored state, empty where there is none."""
        self._stamp, self._digest = _stamp(self._file), ""
        try:
            blob = self._file.read_bytes()
            # The app's own: what it could store, it can read.
            records = decode_records(blob, Bounds(numbers=STATE_LIMIT))
        except FileNotFoundError:
            return Records()
        except ProtocolError as error:
            sys.stderr.write(f"the state of this run is damaged, and begins anew: {error}\n")
            return Records()
        self._digest = hashlib.sha256(blob).hexdigest()
        return records

    def save(self, state: Records) -> None:
        """Store a state, unless it is the stored one. An empty one leaves no file.

        Raises:
            ProtocolError: ``too-large``, or ``disk-full`` when it cannot be written.

        """
        if not state.names():
            self._file.unlink(missing_ok=True)
            self._stamp, self._digest = None, ""
            return
        parts = list(encode_parts(state))
        size = sum(len(part) for part in parts)
        if size > STATE_LIMIT:
            raise ProtocolError(
                "too-large",
                f"the app's context.state has {size} bytes; a device keeps at most {STATE_LIMIT}",
            )
        checksum = hashlib.sha256()
        for part in parts:
            checksum.update(part)
        if checksum.hexdigest() == self._digest and self.is_current():
            return
        try:
            make_folder(self._file.parent)
            with open_atomically(self._file, durable=True, mode=0o600) as stream:
                stream.writelines(parts)
        except OSError as error:
            reason = f"the app's context.state cannot be stored: {error.strerror}"
            raise ProtocolError(disk_code(error), reason) from error
        self._stamp, self._digest = _stamp(self._file), checksum.hexdigest()


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """Identifies one version of a file, which is replaced and never written to."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
