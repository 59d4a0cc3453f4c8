"""Objects by presigned URL: download with digest check into a cache, upload.

A device holds no S3 credentials: each URL is good for one object until the command's deadline
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Protocol

from edge.protocol.messages import ObjectRef

_CHUNK = 1 << 20
CACHED_OBJECTS = 6
"""Files kept in the cache: the weights of a few rounds. The least recently used go first."""


class ObjectError(Exception):
    """A download or upload that failed; ``code`` is one of the reply's reason codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Objects(Protocol):
    """Port: where a device fetches weights and puts updates."""

    async def fetch(self, ref: ObjectRef, seconds: float) -> tuple[Path, int]:
        """A local file with the object's bytes, and how many were downloaded for it."""

    async def put(self, url: str, file: Path, seconds: float) -> None:
        """Upload a file."""


class HttpObjects:
    """:class:`Objects` over HTTP, with a cache by digest."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        cache.mkdir(parents=True, exist_ok=True)

    async def fetch(self, ref: ObjectRef, seconds: float) -> tuple[Path, int]:
        """Raises ObjectError: ``download-failed``, ``bad-digest`` or ``disk-full``."""
        target = self._cache / ref.digest
        if target.is_file() and target.stat().st_size == ref.size:
            os.utime(target)
            return target, 0
        await asyncio.to_thread(_download, ref, target, seconds)
        self._evict(keep=target)
        return target, ref.size

    async def put(self, url: str, file: Path, seconds: float) -> None:
        """Raises ObjectError ``upload-failed``."""
        await asyncio.to_thread(_upload, url, file, seconds)

    def _evict(self, keep: Path) -> None:
        files = sorted((f for f in self._cache.iterdir() if f.suffix == "" and f != keep), key=lambda f: f.stat().st_mtime)
        for file in files[: max(0, len(files) + 1 - CACHED_OBJECTS)]:
            file.unlink(missing_ok=True)


def _download(ref: ObjectRef, target: Path, seconds: float) -> None:
    """Stream to a temporary file; nothing takes the object's name before its digest is right."""
    part = target.with_suffix(".part")
    checksum, size = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(ref.url, timeout=max(1.0, seconds)) as response, part.open("wb") as file:
            while chunk := response.read(_CHUNK):
                size += len(chunk)
                if size > ref.size:
                    raise ObjectError("bad-digest", "The object is larger than announced.")
                checksum.update(chunk)
                file.write(chunk)
        if checksum.hexdigest() != ref.digest:
            raise ObjectError("bad-digest", "The object's digest is not the announced one.")
        part.replace(target)
    except (urllib.error.URLError, TimeoutError, ValueError, ConnectionError) as error:
        raise ObjectError("download-failed", f"Download failed: {error}") from error
    except OSError as error:
        raise ObjectError("disk-full", f"The object cannot be stored: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def _upload(url: str, file: Path, seconds: float) -> None:
    try:
        with file.open("rb") as body:
            request = urllib.request.Request(url, data=body, method="PUT", headers={"Content-Length": str(file.stat().st_size)})
            urllib.request.urlopen(request, timeout=max(1.0, seconds)).close()
    except (urllib.error.URLError, TimeoutError, ValueError, OSError) as error:
        raise ObjectError("upload-failed", f"Upload failed: {error}") from error
