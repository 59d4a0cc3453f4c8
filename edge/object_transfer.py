"""Objects by presigned URL: download with digest check into a cache, upload.

A device holds no S3 credentials: each URL is good for one object until the command's deadline
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
from typing import Protocol

from edge.agent.facts import uptime
from edge.protocol.messages import ObjectRef

_CHUNK = 1 << 20
TRIES = 4
RETRY_SECONDS = 0.5
STALL_SECONDS = 60.0
"""A transfer in which nothing moves for so long is tried again."""
LINK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    TimeoutError,
    ValueError,
    ConnectionError,
)
CACHED_OBJECTS = 6
"""Files kept in the cache: the weights of a few rounds. The least recently used go first."""


class ObjectError(Exception):
    """A download or upload that failed; ``code`` is one of the reply's reason codes. ``passing``:
    it may work a moment later.
    """

    def __init__(self, code: str, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.passing = passing


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
            with contextlib.suppress(OSError):  # a full disk can be read
                os.utime(target)
            return target, 0
        await _persistently(lambda left: _download(ref, target, left), seconds)
        self._evict(keep=target)
        return target, ref.size

    async def put(self, url: str, file: Path, seconds: float) -> None:
        """Raises ObjectError ``upload-failed``."""
        await _persistently(lambda left: _upload(url, file, left), seconds)

    def _evict(self, keep: Path) -> None:
        files = sorted(
            (f for f in self._cache.iterdir() if f.suffix == "" and f != keep),
            key=lambda f: f.stat().st_mtime,
        )
        for file in files[: max(0, len(files) + 1 - CACHED_OBJECTS)]:
            file.unlink(missing_ok=True)


async def _persistently(transfer: Callable[[float], None], seconds: float) -> None:
    """Try a transfer again while there is time and reason to: a link that was cut may be back, an
    address that expired will not.
    """
    deadline, pause = uptime() + seconds, RETRY_SECONDS
    for attempt in range(1, TRIES + 1):
        left = deadline - uptime()
        try:
            # The thread ends by its socket's timeout; nobody waits longer than the deadline for it.
            await asyncio.wait_for(asyncio.to_thread(transfer, min(left, STALL_SECONDS)), left)
            return
        except TimeoutError as error:
            raise ObjectError(
                "download-failed", f"The transfer was not done within {seconds:.0f} s."
            ) from error
        except ObjectError as error:
            if not error.passing or attempt == TRIES or uptime() + pause >= deadline:
                raise
        await asyncio.sleep(pause)
        pause *= 2


def _download(ref: ObjectRef, target: Path, seconds: float) -> None:
    """Stream to a temporary file; nothing takes the object's name before its digest is right."""
    part = target.with_suffix(".part")
    checksum, size = hashlib.sha256(), 0
    try:
        with (
            urllib.request.urlopen(ref.url, timeout=max(1.0, seconds)) as response,
            part.open("wb") as file,
        ):
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
                passing=True,
            )
        if checksum.hexdigest() != ref.digest:
            raise ObjectError("bad-digest", "The object's digest is not the announced one.")
        part.replace(target)
    except LINK_ERRORS as error:
        raise _failed("download-failed", "Download", error) from error
    except OSError as error:
        raise ObjectError(
            disk_code(error), f"The object cannot be stored: {error.strerror}"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _upload(url: str, file: Path, seconds: float) -> None:
    try:
        with file.open("rb") as body:
            request = urllib.request.Request(
                url, data=body, method="PUT", headers={"Content-Length": str(file.stat().st_size)}
            )
            urllib.request.urlopen(request, timeout=max(1.0, seconds)).close()
    except (*LINK_ERRORS, OSError) as error:
        raise _failed("upload-failed", "Upload", error) from error


def _failed(code: str, what: str, error: Exception) -> ObjectError:
    """S3 answers 403 for an address whose time is over, and 4xx for others that will not get
    better.
    """
    status = getattr(error, "code", None)
    if status == 403:
        return ObjectError(code, f"{what} failed: the address has expired or is not allowed (403).")
    passing = not (
        isinstance(status, int) and 400 <= status < 500 and status not in (408, 429)
    ) and not isinstance(error, ValueError)
    return ObjectError(code, f"{what} failed: {error}", passing=passing)


def disk_code(error: OSError) -> str:
    """The reason code of a file operation that failed."""
    return (
        "disk-full" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "device-error"
    )
