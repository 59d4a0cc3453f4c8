"""Files that are written whole or not at all, everywhere in the product by these functions."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomically(file: Path, content: bytes, *, durable: bool, mode: int = 0o644) -> None:
    """Replace a file's content in one step: a reader sees the old or the new, never a part.

    Args:
        file: The file; its folder must exist.
        content: All of the new content.
        durable: Sync the content and the folder before this returns, so that a power cut leaves
            the old or the new. For what a device or a run cannot make again; caches need none.
        mode: Permission bits of the new file.

    Raises:
        OSError: Nothing was changed, and no part is left behind.

    """
    descriptor, part = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".part", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), mode)
        replace_atomically(Path(part), file, durable=durable)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def replace_atomically(part: Path, target: Path, *, durable: bool) -> None:
    """Put a finished file (or symbolic link) in another's place in one step.

    ``durable`` as in :func:`write_atomically`. Both paths lie in the same file system.
    """
    if durable and not part.is_symlink():
        _sync(part)
    part.replace(target)
    if durable:
        _sync(target.parent)


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk. A folder's entry is what a rename changes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
