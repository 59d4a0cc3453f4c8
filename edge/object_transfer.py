"""Objects by presigned URL: downloads with a digest check and a cache, and uploads.

A device holds no S3 credentials. Each URL is valid for one object until the command's deadline
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from edge.clock import uptime
from edge.errors import CodedError
from edge.files import open_atomically, remove_parts
from edge.protocol.messages import ObjectRef

TRIES = 4
RETRY_SECONDS = 0.5
"""Pause before the second attempt; it doubles with each further one."""
STALL_SECONDS = 60.0
"""A transfer in which nothing moves for this long is tried again."""
CACHED_OBJECTS = 6
"""Files kept in the cache: the weights of a few rounds. The least recently used go first."""
_CHUNK = 1 << 20
_LINK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    TimeoutError,
    ValueError,
    ConnectionError,
)


class ObjectError(CodedError):
    """A download or upload that failed; ``code`` is one of the reply's reason codes.

    ``transient``: it may work a moment later.
    """

    def __init__(self, code: str, message: str, *, transient: bool = False) -> None:
        super().__init__(code, message)
        self.transient = transient


class Objects(Protocol):
    """Port: where a device downloads weights and uploads updates."""

    async def fetch(self, ref: ObjectRef, seconds: float) -> tuple[Path, int]:
        """Return a local file with the object, and the number of bytes downloaded for it."""

    async def put(self, url: str, file: Path, seconds: float) -> None:
        """Upload a file."""


class HttpObjects:
    """:class:`Objects` over HTTP, with a cache in which files are named by digest.

    Args:
        cache: The cache's folder. One process at a time writes to it.
        retry_seconds: Pause before the second attempt.

    """

    def __init__(self, cache: Path, *, retry_seconds: float = RETRY_SECONDS) -> None:
        self._cache = cache
        self._retry_seconds = retry_seconds
        cache.mkdir(parents=True, exist_ok=True)
        remove_parts(cache)

    async def fetch(self, ref: ObjectRef, seconds: float) -> tuple[Path, int]:
        """Raises ObjectError: ``download-failed``, ``bad-digest`` or ``disk-full``."""
        target = self._cache / ref.digest
        if target.is_file() and target.stat().st_size == ref.size:
            with contextlib.suppress(OSError):  # a full disk cannot store the time, but be read
                os.utime(target)
            return target, 0
        await self._retry(lambda left: _download(ref, target, left), seconds)
        self._evict(keep=target)
        return target, ref.size

    async def put(self, url: str, file: Path, seconds: float) -> None:
        """Raises ObjectError ``upload-failed``."""
        await self._retry(lambda left: _upload(url, file, left), seconds)

    def _evict(self, keep: Path) -> None:
        files = sorted(
            (f for f in self._cache.iterdir() if f.suffix == "" and f != keep),
            key=lambda f: f.stat().st_mtime,
        )
        for file in files[: max(0, len(files) + 1 - CACHED_OBJECTS)]:
            file.unlink(missing_ok=True)

    async def _retry(self, transfer: Callable[[float], None], seconds: float) -> None:
        """Try again while there is time and the failure is transient.

        A link that was cut may be back; a URL that has expired will not.
        """
        deadline, pause = uptime() + seconds, self._retry_seconds
        for attempt in range(1, TRIES + 1):
            left = deadline - uptime()
            try:
                # A thread cannot be cancelled: past the deadline nobody waits for it, and it ends
                # by its socket's timeout.
                await asyncio.wait_for(asyncio.to_thread(transfer, min(left, STALL_SECONDS)), left)
                return
            except TimeoutError as error:
                raise ObjectError(
                    "download-failed", f"The transfer was not done within {seconds:.0f} s."
                ) from error
            except ObjectError as error:
                if not error.transient or attempt == TRIES or uptime() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)
            pause *= 2


def _download(ref: ObjectRef, target: Path, seconds: float) -> None:
    """Stream to a part; it takes the object's name only once the digest is right."""
    try:
        with (
            urllib.request.urlopen(ref.url, timeout=max(1.0, seconds)) as response,
            open_atomically(target, durable=False) as file,
        ):
            _copy_checked(response, file, ref)
    except _LINK_ERRORS as error:
        raise _failed("download-failed", "Download", error) from error
    except OSError as error:
        raise ObjectError(
            disk_code(error), f"The object cannot be stored: {error.strerror}"
        ) from error


def _copy_checked(response: BinaryIO, file: BinaryIO, ref: ObjectRef) -> None:
    # Both are checked: the size while the object comes, so that a wrong one cannot fill the disk.
    checksum, size = hashlib.sha256(), 0
    while chunk := response.read(_CHUNK):
        size += len(chunk)
        if size > ref.size:
            raise ObjectError("bad-digest", "The object is larger than announced.")
        checksum.update(chunk)
        file.write(chunk)
    if size < ref.size:
        raise ObjectError(
            "download-failed",
            f"Download was cut off after {size} of {ref.size} bytes.",
            transient=True,
        )
    if checksum.hexdigest() != ref.digest:
        raise ObjectError("bad-digest", "The object's digest is not the announced one.")


def _upload(url: str, file: Path, seconds: float) -> None:
    try:
        with file.open("rb") as body:
            request = urllib.request.Request(
                url, data=body, method="PUT", headers={"Content-Length": str(file.stat().st_size)}
            )
            urllib.request.urlopen(request, timeout=max(1.0, seconds)).close()
    except (*_LINK_ERRORS, OSError) as error:
        raise _failed("upload-failed", "Upload", error) from error


def _failed(code: str, what: str, error: Exception) -> ObjectError:
    """Decide from the HTTP status whether another attempt makes sense.

    S3 answers 403 for an expired URL. Of the other 4xx, only 408 and 429 are transient
    (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html).
    """
    status = getattr(error, "code", None)
    if status == 403:
        return ObjectError(code, f"{what} failed: the address has expired or is not allowed (403).")
    refused = isinstance(status, int) and 400 <= status < 500 and status not in (408, 429)
    transient = not refused and not isinstance(error, ValueError)
    return ObjectError(code, f"{what} failed: {error}", transient=transient)


def disk_code(error: OSError) -> str:
    """Return the reason code of a failed file operation."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "disk-full" if full else "device-error"
