"""Files that are written whole or not at all. The whole product writes them by these functions.

``durable`` is a required choice. True syncs the content and the folder, so that a power cut
leaves the old file or the new one: for what a device or a run cannot make again. False skips the
syncs: for caches and statistics.

A file is first written to a part beside it: ``.NAME.RANDOM.part``. The random name lets two
writers meet without mixing their bytes; the last one to finish wins.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, ParamSpec

_PART = ".part"
_Arguments = ParamSpec("_Arguments")


def write_atomically(file: Path, content: bytes, *, durable: bool, mode: int = 0o644) -> None:
    """Replace a file's content in one step: a reader sees the old or the new, never a part.

    Args:
        file: The file; its folder must exist.
        content: All of the new content.
        durable: Whether the new content survives a power cut once this has returned.
        mode: Permission bits of the new file.

    Raises:
        OSError: Nothing was changed, and no part is left behind.

    """
    with open_atomically(file, durable=durable, mode=mode) as stream:
        stream.write(content)


@contextlib.contextmanager
def open_atomically(file: Path, *, durable: bool, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a stream whose content becomes ``file`` when the block ends without an exception.

    Arguments and errors as in :func:`write_atomically`.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", suffix=_PART, dir=file.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            os.fchmod(stream.fileno(), mode)
        replace_atomically(part, file, durable=durable)
    except BaseException:
        part.unlink(missing_ok=True)
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


def link_atomically(link: Path, target: str, *, durable: bool) -> None:
    """Point a symbolic link at ``target`` in one step; the link may exist or not.

    Arguments and errors as in :func:`write_atomically`; ``target`` is relative to the link.
    """
    part = link.with_name(f".{link.name}.{secrets.token_hex(4)}{_PART}")
    part.symlink_to(target)
    try:
        replace_atomically(part, link, durable=durable)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def make_folder(folder: Path) -> None:
    """Make a folder and its parents (idempotent); new ones survive a power cut.

    Without that, a cut could take the folder, with all that is synced in it.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


async def written(
    write: Callable[_Arguments, None], *args: _Arguments.args, **named: _Arguments.kwargs
) -> None:
    """Call what writes durably in a thread, and wait for it.

    To sync a file takes milliseconds, in which the other devices of a process would wait. Once
    begun, it is carried out even if the caller is cancelled.
    """
    await asyncio.shield(asyncio.to_thread(write, *args, **named))


def disk_code(error: OSError) -> str:
    """Return the reason code of a failed file operation."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "disk-full" if full else "device-error"


def remove_parts(folder: Path) -> None:
    """Remove the parts that a power cut left. Only for a folder that nobody else writes to now."""
    for part in folder.glob(f".*{_PART}"):
        with contextlib.suppress(OSError):  # a read-only disk: the parts do no harm
            part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk. A folder's entry is what a rename changes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
