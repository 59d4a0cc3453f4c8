"""Downloads and uploads: tried again while that makes sense, and never half a file."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.addresses import Addresses
from edge.clock import uptime
from edge.object_transfer import HttpObjects, ObjectError
from edge.protocol.messages import (
    ObjectRef,
)
from edge.protocol.records import (
    digest,
)
from edge.protocol.upload_form import form_address

LOCAL = Addresses(loopback=True)
DATA = bytes(range(256)) * 400


Answer = Callable[[http.server.BaseHTTPRequestHandler, int], None]


@contextlib.contextmanager
def server(answer: Answer) -> Iterator[str]:
    """An HTTP server on loopback; ``answer`` gets the request and its number."""
    count = iter(range(1, 1000))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, next(count))

        do_PUT = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            return

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
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
    objects = HttpObjects(tmp_path / "cache", LOCAL)
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
    objects, began = HttpObjects(tmp_path / "cache", LOCAL), uptime()
    upload = tmp_path / "update"
    upload.write_bytes(b"x")
    with server(refused) as url:
        with pytest.raises(ObjectError, match="expired") as download:
            asyncio.run(objects.fetch(ObjectRef(digest(DATA), len(DATA), url), 60.0))
        with pytest.raises(ObjectError, match="expired") as failed:
            asyncio.run(objects.put(url, upload, 60.0))
    assert (download.value.code, failed.value.code) == ("download-failed", "upload-failed")
    assert download.value.refused
    assert failed.value.refused
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
    objects = HttpObjects(tmp_path / "cache", LOCAL)
    with (
        server(lambda request, number: cut_at_first(request, 2)) as url,
        files_of_at_most(len(DATA) // 2),
        pytest.raises(ObjectError, match="cannot be stored") as failed,
    ):
        asyncio.run(objects.fetch(ObjectRef(digest(DATA), len(DATA), url), 20.0))
    assert failed.value.code == "disk-full"
    assert list((tmp_path / "cache").iterdir()) == []


def test_slow_downloads_end_at_their_deadline_and_hold_up_no_other(tmp_path: Path) -> None:
    """Each kept a thread: after six, nothing was transferred until the agent's restart."""
    objects, healthy = HttpObjects(tmp_path / "cache", LOCAL), threading.Event()

    def drips(request: http.server.BaseHTTPRequestHandler, number: int) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(DATA)))
        request.end_headers()
        if healthy.is_set():
            request.wfile.write(DATA)
            return
        with contextlib.suppress(OSError):
            for place in range(1000):
                request.wfile.write(DATA[place : place + 1])
                time.sleep(0.02)

    async def main(url: str) -> None:
        ref = ObjectRef(digest(DATA), len(DATA), url)
        ends = await asyncio.gather(
            *(objects.fetch(ref, 0.2) for _ in range(8)), return_exceptions=True
        )
        assert {getattr(end, "code", end) for end in ends} == {"download-failed"}
        assert list((tmp_path / "cache").iterdir()) == [], "the parts go with their transfers"
        healthy.set()
        file, _ = await objects.fetch(ref, 10.0)
        assert file.read_bytes() == DATA

    with server(drips) as url:
        asyncio.run(main(url))


def test_a_cut_download_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    ranges: list[str] = []

    def in_pieces(request: http.server.BaseHTTPRequestHandler, number: int) -> None:
        asked = request.headers.get("Range", "")
        ranges.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        request.send_response(206 if asked else 200)
        request.send_header("Content-Length", str(len(DATA) - start))
        request.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        request.end_headers()
        request.wfile.write(DATA[start : start + 40_000])

    objects = HttpObjects(tmp_path / "cache", LOCAL, retry_seconds=0.01)
    with server(in_pieces) as url:
        file, size = asyncio.run(objects.fetch(ObjectRef(digest(DATA), len(DATA), url), 20.0))
    assert (file.read_bytes(), size) == (DATA, len(DATA))
    assert ranges == ["", "bytes=40000-", "bytes=80000-"]


def test_a_cached_object_that_was_damaged_is_downloaded_again_after_a_restart(
    tmp_path: Path,
) -> None:
    """Of the right size: a power cut leaves zeros."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / digest(DATA)).write_bytes(bytes(len(DATA)))
    (cache / "update.out").write_bytes(b"left by a kill")
    objects = HttpObjects(cache, LOCAL)
    assert not (cache / "update.out").exists()
    with server(lambda request, number: cut_at_first(request, 2)) as url:
        ref = ObjectRef(digest(DATA), len(DATA), url)
        file, size = asyncio.run(objects.fetch(ref, 20.0))
    assert (file.read_bytes(), size) == (DATA, len(DATA))
    assert asyncio.run(HttpObjects(cache, LOCAL).fetch(ref, 20.0))[1] == 0


def leads_elsewhere(request: http.server.BaseHTTPRequestHandler, number: int) -> None:
    request.send_response(302)
    request.send_header("Location", "/other")
    request.end_headers()


def test_no_redirect_is_followed(tmp_path: Path) -> None:
    objects = HttpObjects(tmp_path / "cache", LOCAL)
    with (
        server(leads_elsewhere) as url,
        pytest.raises(ObjectError, match="elsewhere") as refused,
    ):
        asyncio.run(objects.fetch(ObjectRef(digest(DATA), len(DATA), url), 20.0))
    assert not refused.value.transient


def test_an_address_that_is_not_allowed_is_not_asked(tmp_path: Path) -> None:
    objects, asked = HttpObjects(tmp_path / "cache", Addresses()), []
    (tmp_path / "update").write_bytes(b"x")
    with server(lambda request, number: asked.append(number)) as url:
        for transfer in (
            objects.fetch(ObjectRef(digest(DATA), len(DATA), url), 5.0),
            objects.put(url, tmp_path / "update", 5.0),
        ):
            with pytest.raises(ObjectError, match="may use") as refused:
                asyncio.run(transfer)
            assert refused.value.code == "foreign"
    assert asked == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/x", "http://localhost:9/x", "http://[::1]:1/x"]
)
def test_a_reason_does_not_tell_what_listens_in_the_network(tmp_path: Path, url: str) -> None:
    objects = HttpObjects(tmp_path / "cache", LOCAL, retry_seconds=0.001)
    with pytest.raises(ObjectError) as failed:
        asyncio.run(objects.fetch(ObjectRef(digest(DATA), len(DATA), url), 5.0))
    assert str(failed.value) == "Download failed: the connection could not be made or was cut."


def test_an_upload_by_form_has_its_fields_and_the_file_last(tmp_path: Path) -> None:
    bodies: list[bytes] = []

    def takes(request: http.server.BaseHTTPRequestHandler, number: int) -> None:
        bodies.append(request.rfile.read(int(request.headers["Content-Length"])))
        request.send_response(204)
        request.end_headers()

    objects, update = HttpObjects(tmp_path / "cache", LOCAL), tmp_path / "update"
    update.write_bytes(DATA)
    with server(takes) as url:
        asyncio.run(objects.put(form_address(url, {"key": "a/b", "policy": "eyJ="}), update, 5.0))
    (body,) = bodies
    boundary = body.split(b"\r\n", 1)[0]
    parts = body.removesuffix(b"--\r\n").split(boundary)
    assert [part.split(b"\r\n\r\n", 1)[-1].removesuffix(b"\r\n") for part in parts] == [
        b"",
        b"a/b",
        b"eyJ=",
        DATA,
        b"",
    ]
