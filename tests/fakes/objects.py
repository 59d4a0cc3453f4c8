"""In-memory object stores: the server's (by key) and a device's (by presigned URL)."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from edge.object_transfer import ObjectError
from edge.protocol.messages import ObjectRef
from edge.protocol.records import digest
from fl_runtime.run.errors import ObjectMissing


class MemoryObjects:
    """ObjectStore in a dictionary; a URL is the key itself."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.puts: list[str] = []

    def get(self, key: str, limit: int | None = None) -> bytes:
        if key not in self.data or (limit is not None and len(self.data[key]) > limit):
            raise ObjectMissing(key)
        return self.data[key]

    def download(self, key: str, file: BinaryIO, limit: int) -> str:
        blob = self.get(key, limit)
        file.write(blob)
        return digest(blob)

    def digest(self, key: str) -> str:
        return digest(self.get(key))

    def size(self, key: str) -> int:
        return len(self.get(key))

    def put(self, key: str, data: bytes) -> None:
        self.data[key] = data
        self.puts.append(key)

    def discard(self, key: str) -> None:
        self.data.pop(key, None)

    def url_to_get(self, key: str, seconds: float) -> str:
        return key

    def url_to_put(self, key: str, seconds: float, limit: int) -> str:
        return key


class FileObjects:
    """Device-side Objects over a dictionary of bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}
        self.fetched: list[str] = []

    async def fetch(self, ref: ObjectRef, seconds: float) -> tuple[Path, int]:
        self.fetched.append(ref.digest)
        if ref.url not in self.data:
            raise ObjectError("download-failed", f"Download failed: there is no {ref.url}.")
        if digest(self.data[ref.url]) != ref.digest:
            raise ObjectError("bad-digest", "The object's digest is not the announced one.")
        file = self.folder / ref.digest
        file.write_bytes(self.data[ref.url])
        return file, ref.size

    async def put(self, url: str, file: Path, seconds: float) -> None:
        self.uploads[url] = file.read_bytes()
