"""Cuts the power before every change that code makes to a folder, and shows what is left.

It stands over ``os``: it knows what was synced, and beside it makes, for each moment, the folders
that a disk could hold then: only what was synced; all names, but unsynced contents lost (as ext4
leaves them: files of zero bytes); and all names, with half of each unsynced content.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

Entry = tuple[str, int | str]
"""``file`` or ``folder`` and a serial number, or ``link`` and where it leads."""
CHANGES = ("mkdir", "replace", "symlink", "unlink", "rmdir", "fsync", "open")


@dataclass
class PowerCuts:
    """Watches ``folder`` while :meth:`watching`; what could be left lies below ``out``."""

    folder: Path
    out: Path
    moments: int = 0
    left: list[Path] = field(default_factory=list)
    _serials: dict[int, int] = field(default_factory=dict)
    _contents: dict[int, bytes] = field(default_factory=dict)
    _entries: dict[int, dict[str, Entry]] = field(default_factory=dict)

    @contextlib.contextmanager
    def watching(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        """All that is in the folder now is on the disk; from now on, only what is synced."""
        self._sync_all(self.folder)
        with patch.context() as context:
            for name in CHANGES:
                context.setattr(os, name, self._watched(name, getattr(os, name)))
            yield
        self._cut()

    def _watched(self, name: str, change: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*given: Any, **options: Any) -> Any:
            creates = name in ("mkdir", "symlink")
            if name == "open":
                creates = bool(given[1] & os.O_CREAT)
                if not creates:
                    return change(*given, **options)
            self._cut()
            done = change(*given, **options)
            if name == "fsync":
                self._synced(given[0])
            elif creates:
                path = given[1] if name == "symlink" else given[0]
                # A number of a removed file may be given to a new one: it is another file.
                self._serials[os.lstat(path).st_ino] = max(self._serials.values(), default=0) + 1
            return done

        return watched

    def _synced(self, descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            self._entries[self._serial(path)] = self._listed(path)
        else:
            self._contents[self._serial(path)] = path.read_bytes()

    def _sync_all(self, folder: Path) -> None:
        self._entries[self._serial(folder)] = self._listed(folder)
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                self._sync_all(path)
            elif not path.is_symlink():
                self._contents[self._serial(path)] = path.read_bytes()

    def _serial(self, path: Path) -> int:
        number = os.lstat(path).st_ino
        return self._serials.setdefault(number, max(self._serials.values(), default=0) + 1)

    def _listed(self, folder: Path) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for path in folder.iterdir():
            if path.is_symlink():
                entries[path.name] = ("link", os.readlink(path))
            else:
                entries[path.name] = ("folder" if path.is_dir() else "file", self._serial(path))
        return entries

    def _cut(self) -> None:
        """Make the folders that a cut at this moment could leave."""
        self.moments += 1
        makers = {
            "synced": lambda target: self._make_synced(self._serial(self.folder), target),
            "names": lambda target: self._make_live(self.folder, target, 0),
            "torn": lambda target: self._make_live(self.folder, target, 2),
        }
        for name, make in makers.items():
            target = self.out / f"{self.moments:03}-{name}"
            with _unwatched():
                make(target)
            self.left.append(target)

    def _make_synced(self, serial: int, target: Path) -> None:
        target.mkdir(parents=True)
        for name, (kind, what) in self._entries.get(serial, {}).items():
            if kind == "link":
                (target / name).symlink_to(str(what))
            elif kind == "folder":
                self._make_synced(int(what), target / name)
            else:
                (target / name).write_bytes(self._contents.get(int(what), b""))

    def _make_live(self, folder: Path, target: Path, part: int) -> None:
        target.mkdir(parents=True)
        for path in folder.iterdir():
            if path.is_symlink():
                (target / path.name).symlink_to(os.readlink(path))
            elif path.is_dir():
                self._make_live(path, target / path.name, part)
            else:
                now, synced = path.read_bytes(), self._contents.get(self._serial(path))
                left = now if now == synced else now[: len(now) // part if part else 0]
                (target / path.name).write_bytes(left)


_REAL = {name: getattr(os, name) for name in CHANGES}


@contextlib.contextmanager
def _unwatched() -> Iterator[None]:
    """The watcher's own changes are none."""
    watched = {name: getattr(os, name) for name in CHANGES}
    for name, real in _REAL.items():
        setattr(os, name, real)
    try:
        yield
    finally:
        for name, change in watched.items():
            setattr(os, name, change)
