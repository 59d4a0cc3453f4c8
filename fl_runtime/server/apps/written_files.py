"""The files that a ServerApp writes: it works in its own folder, and what is new there is kept."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from edge.logs import event
from edge.training.app_bundle import FlowerApp

logger = logging.getLogger(__name__)

FILES_LIMIT = 100
"""Number of files that are kept."""
BYTES_LIMIT = 256 * 2**20
"""Bytes of all files that are kept."""
_SKIPPED = "__pycache__"


@contextlib.contextmanager
def working_folder(app: FlowerApp) -> Iterator[dict[str, bytes]]:
    """Work in the app's folder while the block lasts; its end fills the dictionary that it yields.

    It gets the contents of the files that were made or changed, by their path in the folder. Of an
    app without a ServerApp nothing runs here, so it is empty.
    """
    files: dict[str, bytes] = {}
    if not app.server_app:
        yield files
        return
    before = _stamps(app.folder)
    with contextlib.chdir(app.folder):
        yield files
    changed = [path for path, stamp in _stamps(app.folder).items() if before.get(path) != stamp]
    files.update(_contents(app.folder, sorted(changed)))


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """Modification time and size of each file. No links: they may lead out of the folder."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and _SKIPPED not in path.parts:
            status = path.stat()
            found[path] = (status.st_mtime_ns, status.st_size)
    return found


def _contents(folder: Path, paths: list[Path]) -> dict[str, bytes]:
    kept: dict[str, bytes] = {}
    left = BYTES_LIMIT
    for path in paths:
        name, size = path.relative_to(folder).as_posix(), path.stat().st_size
        if len(kept) >= FILES_LIMIT or size > left or not name.isprintable():
            event(
                logger,
                "file-not-kept",
                logging.WARNING,
                file=name,
                bytes=size,
                reason=f"at most {FILES_LIMIT} files of {BYTES_LIMIT} bytes in all are kept",
            )
            continue
        kept[name] = path.read_bytes()
        left -= size
    return kept
