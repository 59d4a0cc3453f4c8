"""Objects that are downloaded to a file without a name, and mapped into memory.

The system reads the pages of a map when they are used and takes them back when they are not, so a
hundred updates take the disk's space and next to no memory. The file is gone with its last view.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable
from typing import Any, BinaryIO

from numpy.typing import NDArray

from edge.protocol.records import digest
from fl_runtime.run.ports import ObjectStore

IN_MEMORY = 2**20
"""Bytes up to which an object is kept in memory: a file would take longer than it saves."""


def fetch(objects: ObjectStore, key: str, size: int) -> tuple[memoryview, str]:
    """Read an object of at most ``size`` bytes; returns its content and its SHA-256.

    Raises:
        ObjectMissing: The object is absent, or larger.

    """
    if size <= IN_MEMORY:
        blob = objects.get(key, size)
        return memoryview(blob), digest(blob)
    with tempfile.TemporaryFile() as file:
        found = objects.download(key, file, size)
        return map_file(file), found


def map_file(file: BinaryIO) -> memoryview:
    """Map a file's content, read-only. The view stays valid when the file is closed."""
    file.flush()
    if not file.tell():
        return memoryview(b"")
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def is_mapped(array: NDArray[Any]) -> bool:
    """Whether an array is a view on a mapped file."""
    return _map_of(array) is not None


def release(arrays: Iterable[NDArray[Any]]) -> None:
    """Let the system take back the pages of mapped arrays. They are read again when used."""
    found = {id(mapped): mapped for array in arrays if (mapped := _map_of(array)) is not None}
    for mapped in found.values():
        mapped.madvise(mmap.MADV_DONTNEED)


def _map_of(array: NDArray[Any]) -> mmap.mmap | None:
    """The map below an array, which may be a view on a view on it."""
    base: Any = array
    while base is not None and not isinstance(base, memoryview):
        base = getattr(base, "base", None)
    found = base.obj if base is not None else None
    return found if isinstance(found, mmap.mmap) else None
