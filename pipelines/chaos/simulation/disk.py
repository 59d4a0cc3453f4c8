"""What a power cut leaves of a folder: what was synced for certain, and of the rest what chance
leaves. A rename without a sync of its folder may be undone; content without a sync may be lost
behind a name that is there (https://lwn.net/Articles/322823/).
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import random
from collections.abc import Callable, Iterator
from pathlib import Path

Files = dict[str, bytes]
"""Content by path below the folder."""


class Disk:
    """A device's folder, watched."""

    def __init__(self, folder: Path, on_sync: Callable[[], None]) -> None:
        self.folder = folder
        self._on_sync = on_sync
        self._contents: dict[int, bytes] = {}
        """Synced content by inode."""
        self._entries: Files = {}
        """What is certain to survive."""

    def fill(self, files: Files) -> None:
        """Put files there, durably."""
        for name, content in files.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        self._entries = dict(files)

    def files(self) -> Files:
        """All files as a reader sees them now: what a killed process leaves."""
        return {name: (self.folder / name).read_bytes() for name in self._paths()}

    def after_power_cut(self, rng: random.Random) -> Files:
        """What is there at the next boot."""
        inodes = {name: self._inode(name) for name in self._paths()}
        now, left = self.files(), {}
        for name in sorted({*now, *self._entries}):
            new, old = now.get(name), self._entries.get(name)
            if new != old and rng.random() < 0.5:
                new = old
            elif new != old and new is not None and self._contents.get(inodes[name]) != new:
                new = rng.choice([new, b"", new[: len(new) // 2]])
            if new is not None:
                left[name] = new
        return left

    def sync(self, path: Path) -> None:
        """A file or folder is synced."""
        self._on_sync()
        if path.is_file():
            self._contents[path.stat().st_ino] = path.read_bytes()
            return
        parent = path.relative_to(self.folder).as_posix()
        inside = {name for name in self._paths() if (posixpath.dirname(name) or ".") == parent}
        for name in [name for name in self._entries if (posixpath.dirname(name) or ".") == parent]:
            if name not in inside:
                del self._entries[name]
        for name in inside:
            content = self._contents.get(self._inode(name))
            if content is not None:
                self._entries[name] = content

    def _paths(self) -> list[str]:
        """Files below the folder; what is cached may be lost at any time, and is left out."""
        found: list[str] = []
        todo = [""]
        while todo:
            prefix = todo.pop()
            with os.scandir(self.folder / prefix) as entries:
                for entry in entries:
                    name = f"{prefix}{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        todo += [] if name == "cache" else [f"{name}/"]
                    # Parts have random names, and nobody reads them.
                    elif entry.is_file(follow_symlinks=False) and not name.endswith(".part"):
                        found.append(name)
        return found

    def _inode(self, name: str) -> int:
        return (self.folder / name).stat().st_ino


@contextlib.contextmanager
def watched(disks: dict[str, Disk]) -> Iterator[None]:
    """Within the context, ``os.fsync`` below one of the folders tells its disk."""
    original = os.fsync

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        for folder, disk in disks.items():
            if path == disk.folder or str(path).startswith(f"{folder}/"):
                disk.sync(path)
                return
        original(descriptor)

    os.fsync = fsync  # type: ignore[assignment]
    try:
        yield
    finally:
        os.fsync = original
