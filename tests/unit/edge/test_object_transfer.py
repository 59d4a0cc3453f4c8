"""Downloads and uploads: tried again while that makes sense, and never half a file."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.clock import uptime
from edge.object_transfer import HttpObjects, ObjectError
from edge.protocol.messages import (
    ObjectRef,
)
from edge.protocol.records import (
    digest,
)

DATA = bytes(range(256)) * 400


Answer = Callable[[http.server.BaseHTTPRequestHandler, int], None]


@contextlib.contextmanager
def server(answer: Answer) -> Iterator[str]:
    """An HTTP server on loopback; ``answer`` gets the request and its number."""
    count = iter(range(1, 1000))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, next(count))

        do_PUT = do_GET

        def log_message(self, *_: object) -> None:
            return

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/object"
    finally:
        running.shutdown()
        running.server_close()


def cut_at_first(request: http.server.BaseHTTPRequestHandler, number: int) -> None:
    """The first answer is announced whole and ends half way; an upload's connection is cut while it
    sends.
    """
    if request.command == "PUT" and number == 1:
        request.rfile.read(1000)
        request.close_connection = True
        return
    if request.command == "PUT":
        request.rfile.read(int(request.headers["Content-Length"]))
    request.send_response(200)
    request.send_header("Content-Length", str(len(DATA)) if request.command == "GET" else "0")
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(DATA[: len(DATA) // 2] if number == 1 else DATA)


def refused(request: http.server.BaseHTTPRequestHandler, number: int) -> None:
    request.send_error(403)


def test_a_transfer_that_is_cut_off_is_tried_again(tmp_path: Path) -> None:
    objects = HttpObjects(tmp_path / "cache")
    with server(cut_at_first) as url:
        file, size = asyncio.run(objects.fetch(ObjectRef(digest(DATA), len(DATA), url), 20.0))
    assert (file.read_bytes(), size) == (DATA, len(DATA))
    upload = tmp_path / "update"
    upload.write_bytes(DATA * 20)
    with server(cut_at_first) as url:
        asyncio.run(objects.put(url, upload, 20.0))
    assert [f.name for f in (tmp_path / "cache").iterdir()] == [digest(DATA)], (
        "no part of a file is left"
    )


def test_an_address_whose_time_is_over_is_not_tried_again(tmp_path: Path) -> None:
    objects, began = HttpObjects(tmp_path / "cache"), uptime()
    upload = tmp_path / "update"
    upload.write_bytes(b"x")
    with server(refused) as url:
        with pytest.raises(ObjectError, match="expired") as download:
            asyncio.run(objects.fetch(ObjectRef(digest(DATA), len(DATA), url), 60.0))
        with pytest.raises(ObjectError, match="expired") as failed:
            asyncio.run(objects.put(url, upload, 60.0))
    assert (download.value.code, failed.value.code) == ("download-failed", "upload-failed")
    assert uptime() - began < 30


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the kernel refuse larger files of this process, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    objects = HttpObjects(tmp_path / "cache")
    with (
        server(lambda request, number: cut_at_first(request, 2)) as url,
        files_of_at_most(len(DATA) // 2),
        pytest.raises(ObjectError, match="cannot be stored") as failed,
    ):
        asyncio.run(objects.fetch(ObjectRef(digest(DATA), len(DATA), url), 20.0))
    assert failed.value.code == "disk-full"
    assert list((tmp_path / "cache").iterdir()) == []
