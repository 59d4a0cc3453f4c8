"""Objects by presigned URL: downloads with a digest check and a cache, and uploads.

A device holds no S3 credentials. Each URL is valid for one object until the command's deadline
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import BinaryIO, Protocol

import httpx

from edge.addresses import Addresses
from edge.clock import uptime
from edge.errors import CodedError
from edge.files import disk_code, open_atomically, remove_parts
from edge.logs import event
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import ObjectRef
from edge.protocol.upload_form import upload_request

logger = logging.getLogger(__name__)

TRIES = 4
RETRY_SECONDS = 0.5
"""Pause before the second attempt; it doubles with each further one."""
STALL_SECONDS = 60.0
"""A transfer in which nothing moves for this long is tried again."""
CONNECT_SECONDS = 20.0
CACHED_OBJECTS = 6
"""Files kept in the cache: the weights of a few rounds. The least recently used go first."""
_CHUNK = 1 << 16


class ObjectError(CodedError):
    """A download or upload that failed; ``code`` is one of the reply's reason codes.

    ``transient``: it may work a moment later. ``refused``: the address may have expired.
    """

    def __init__(
        self, code: str, message: str, *, transient: bool = False, refused: bool = False
    ) -> None:
        super().__init__(code, message)
        self.transient = transient
        self.refused = refused


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
        addresses: Where this device may download from and upload to.
        retry_seconds: Pause before the second attempt.

    """

    def __init__(
        self, cache: Path, addresses: Addresses, *, retry_seconds: float = RETRY_SECONDS
    ) -> None:
        self._cache = cache
        self._addresses = addresses
        self._retry_seconds = retry_seconds
        self._verified: set[str] = set()
        cache.mkdir(parents=True, exist_ok=True)
        remove_parts(cache)
        for left in cache.glob("*.out"):  # an update whose upload was killed
            left.unlink(missing_ok=True)

    async def fetch(self, ref: ObjectRef, seconds: float) -> tuple[Path, int]:
        """Raises ObjectError: ``download-failed``, ``bad-digest``, ``foreign`` or ``disk-full``."""
        target = self._cache / ref.digest
        if await self._is_cached(target, ref):
            with contextlib.suppress(OSError):  # a full disk cannot store the time, but be read
                os.utime(target)
            return target, 0
        self._check(ref.url)
        async with _within(seconds, "download-failed"):
            await self._download(ref, target, uptime() + seconds)
        self._verified.add(ref.digest)
        self._evict(keep=target)
        return target, ref.size

    async def put(self, url: str, file: Path, seconds: float) -> None:
        """Raises ObjectError ``upload-failed`` or ``foreign``."""
        self._check(url)
        async with _within(seconds, "upload-failed"):
            await self._retry(lambda: _upload(url, file), uptime() + seconds)

    async def _is_cached(self, target: Path, ref: ObjectRef) -> bool:
        """Whether the cache has the object. What an earlier process left is read once in full."""
        if not target.is_file() or target.stat().st_size != ref.size:
            return False
        if ref.digest in self._verified:
            return True
        if await asyncio.to_thread(_digest_of, target) != ref.digest:
            event(logger, "cached-object-damaged", logging.WARNING, digest=ref.digest)
            target.unlink(missing_ok=True)
            return False
        self._verified.add(ref.digest)
        return True

    def _check(self, url: str) -> None:
        try:
            self._addresses.check(url)
        except ProtocolError as error:
            raise ObjectError(error.code, str(error)) from error

    async def _download(self, ref: ObjectRef, target: Path, deadline: float) -> None:
        """Download to a part of its own, which takes the object's name once the digest is right."""
        try:
            with open_atomically(target, durable=False) as stream:
                part = _Part(ref, stream)
                await self._retry(lambda: _receive(ref.url, part), deadline)
                part.check()
        except OSError as error:
            reason = f"The object cannot be stored: {error.strerror}"
            raise ObjectError(disk_code(error), reason) from error

    def _evict(self, keep: Path) -> None:
        files = sorted(
            (f for f in self._cache.iterdir() if f.suffix == "" and f != keep),
            key=lambda f: f.stat().st_mtime,
        )
        for file in files[: max(0, len(files) + 1 - CACHED_OBJECTS)]:
            file.unlink(missing_ok=True)

    async def _retry(self, transfer: Callable[[], Awaitable[None]], deadline: float) -> None:
        """Try again while there is time and the failure is transient.

        A link that was cut may be back; a URL that has expired will not.
        """
        pause = self._retry_seconds
        for attempt in range(1, TRIES + 1):
            try:
                await transfer()
                return
            except ObjectError as error:
                if not error.transient or attempt == TRIES or uptime() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)
            pause *= 2


class _Part:
    """The bytes of an object that have come so far. A cut transfer is continued behind them."""

    def __init__(self, ref: ObjectRef, stream: BinaryIO) -> None:
        self._ref = ref
        self._stream = stream
        self._checksum = hashlib.sha256()
        self.size = 0

    def restart(self) -> None:
        """Forget what has come."""
        self._stream.seek(0)
        self._stream.truncate()
        self._checksum, self.size = hashlib.sha256(), 0

    def write(self, chunk: bytes) -> None:
        """Append bytes. The size is checked here: a wrong object must not fill the disk."""
        self.size += len(chunk)
        if self.size > self._ref.size:
            raise ObjectError("bad-digest", "The object is larger than announced.")
        self._checksum.update(chunk)
        self._stream.write(chunk)

    def check_whole(self) -> None:
        """Raise ObjectError unless all bytes have come."""
        if self.size < self._ref.size:
            reason = f"Download was cut off after {self.size} of {self._ref.size} bytes."
            raise ObjectError("download-failed", reason, transient=True)

    def check(self) -> None:
        """Raise ObjectError unless the bytes are those of the announced digest."""
        if self._checksum.hexdigest() != self._ref.digest:
            raise ObjectError("bad-digest", "The object's digest is not the announced one.")


async def _receive(url: str, part: _Part) -> None:
    headers = {"Accept-Encoding": "identity"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
    async with (
        _link_errors("download-failed", "Download"),
        _client() as client,
        client.stream("GET", url, headers=headers) as answer,
    ):
        _check_status("download-failed", "Download", answer.status_code)
        # A server that knows no ranges sends the whole object again.
        begins = answer.headers.get("Content-Range", "").startswith(f"bytes {part.size}-")
        if answer.status_code != httpx.codes.PARTIAL_CONTENT or not begins:
            part.restart()
        async for chunk in answer.aiter_raw():
            part.write(chunk)
    part.check_whole()


async def _upload(address: str, file: Path) -> None:
    try:
        size = file.stat().st_size
        request = upload_request(address, size)
        async with (
            _link_errors("upload-failed", "Upload"),
            _client() as client,
            client.stream(
                request.method,
                request.url,
                headers=request.headers,
                content=_body(request.head, file, request.tail),
            ) as answer,
        ):
            _check_status("upload-failed", "Upload", answer.status_code)
    except OSError as error:
        reason = f"The update cannot be read: {error.strerror}"
        raise ObjectError("upload-failed", reason) from error


async def _body(head: bytes, file: Path, tail: bytes) -> AsyncIterator[bytes]:
    yield head
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk
    yield tail


def _client() -> httpx.AsyncClient:
    """Return a client that follows no redirect: it could lead to an address that is not allowed."""
    timeout = httpx.Timeout(STALL_SECONDS, connect=CONNECT_SECONDS)
    return httpx.AsyncClient(verify=_tls(), timeout=timeout, follow_redirects=False)


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


@contextlib.asynccontextmanager
async def _within(seconds: float, code: str) -> AsyncIterator[None]:
    """Cancel a transfer at its deadline, and with it its connection."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise ObjectError(code, f"The transfer was not done within {seconds:.0f} s.") from error


@contextlib.asynccontextmanager
async def _link_errors(code: str, what: str) -> AsyncIterator[None]:
    """Translate errors of the connection.

    The reason goes to the server, and says nothing of the network here: whether a name or port
    exists stays in the log.
    """
    try:
        yield
    except httpx.InvalidURL as error:
        raise ObjectError(code, f"{what} failed: the address is malformed.") from error
    except httpx.TransportError as error:
        event(logger, "transfer-failed", logging.WARNING, reason=repr(error))
        reason = f"{what} failed: the connection could not be made or was cut."
        raise ObjectError(code, reason, transient=True) from error


def _check_status(code: str, what: str, status: int) -> None:
    """Raise ObjectError unless the answer is a success; says whether to try again.

    S3 answers 403 for an expired URL. Of the other 4xx, only 408 and 429 are transient
    (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html).
    """
    if httpx.codes.is_success(status):
        return
    if status == httpx.codes.FORBIDDEN:
        reason = f"{what} failed: the address has expired or is not allowed (403)."
        raise ObjectError(code, reason, refused=True)
    if httpx.codes.is_redirect(status):
        raise ObjectError(code, f"{what} failed: the server leads elsewhere ({status}).")
    transient = status in (408, 429) or status >= 500
    raise ObjectError(code, f"{what} failed: the server answered {status}.", transient=transient)


def _digest_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
