"""File systems for faults of disks: where this user may mount them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

NOT_ALLOWED = "this user may not mount file systems"
_CLONE_NEWNS = 0x00020000


def private_mounts() -> str:
    """Give this process mounts of its own, which end with it and its children, however they end.

    Returns why that is not possible; empty when it is. To be called before any thread is started.
    https://man7.org/linux/man-pages/man2/unshare.2.html
    """
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        return NOT_ALLOWED
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
        return os.strerror(ctypes.get_errno())
    return command("mount", "--make-rprivate", "/")


def command(*words: str) -> str:
    """Run a command; returns why it failed, empty when it did not."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return (done.stderr.strip() or f"exit {done.returncode}") if done.returncode else ""


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[str]:
    """Put a small file system in memory at a folder while the block lasts; yields why not."""
    folder.mkdir(parents=True, exist_ok=True)
    refused = command("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder))
    try:
        yield refused
    finally:
        if not refused:
            # Lazily: a process that should have ended, and is reported, may still be in it.
            command("umount", "--lazy", str(folder))
