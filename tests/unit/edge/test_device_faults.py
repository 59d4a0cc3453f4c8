"""What a device does when its link, its disk or its power fails: a reply that says so, or one that
comes later.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_agent import Device, instant, with_device

from edge.agent.heartbeat import free_memory, power
from edge.agent.spool import KEPT, Spool
from edge.clock import uptime
from edge.object_transfer import HttpObjects, ObjectError
from edge.protocol.messages import ObjectRef
from edge.protocol.records import digest
from edge.transports import TransportError

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


def test_a_reply_outlives_a_lost_connection(tmp_path: Path) -> None:
    async def test(device: Device) -> None:
        from edge.protocol.messages import encode

        publish, lost = device.transport.publish, [True]

        async def flaky(topic: str, payload: bytes) -> None:
            if lost[0] and topic.endswith("/reply"):
                raise TransportError("the link is down")
            await publish(topic, payload)

        device.transport.publish = flaky
        device.deliver(encode(device.command()))
        await asyncio.sleep(0.3)
        assert not [t for t, _ in device.transport.published if t.endswith("/reply")]
        lost[0] = False
        assert [reply.message_id for reply in await device.replies(1)] == ["m1"]

    with_device(tmp_path, instant(), test)


def test_a_device_that_was_restarted_answers_a_repeated_command_without_training_again(
    tmp_path: Path,
) -> None:
    from edge.protocol.messages import encode

    async def first(device: Device) -> None:
        device.deliver(encode(device.command()))
        await device.replies(1)

    with_device(tmp_path / "home", instant(), first)
    workers = instant(ok=False, code="app-error", reason="it trained again")

    async def second(device: Device) -> None:
        device.deliver(encode(device.command()))
        assert [reply.status for reply in await device.replies(1)] == ["ok"]

    with_device(tmp_path / "home", workers, second)
    assert workers.jobs == []


def test_the_spool_keeps_order_is_bounded_and_forgets_what_a_power_cut_left(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in range(KEPT + 5):
        spool.keep(f"m/../{number}", f"p{number}".encode())
    spool.mark_sent("m/../7")
    (tmp_path / "torn.json").write_bytes(b'{"message_id": "x"')
    again = Spool(tmp_path)
    assert [entry.payload for entry in again.unsent()] == [
        f"p{n}".encode() for n in range(5, KEPT + 5) if n != 7
    ]
    assert again.get("m/../7") == b"p7"
    assert again.get("m/../0") is None
    assert len(list(tmp_path.iterdir())) == KEPT
    again.keep("next", b"n")
    assert again.unsent()[-1].message_id == "next"


def test_a_disk_that_takes_nothing_costs_no_reply(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spool = Spool(tmp_path / "file" / "spool")
    spool.keep("m", b"p")
    assert spool.get("m") == b"p"
    assert [entry.message_id for entry in spool.unsent()] == ["m"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ""),
        ({"AC/type": "Mains", "AC/online": "1", "BAT0/type": "Battery"}, "mains"),
        ({"AC/type": "Mains", "AC/online": "0", "BAT0/type": "Battery"}, "battery"),
        ({"mouse/type": "Battery", "mouse/scope": "Device"}, ""),
    ],
)
def test_power_is_read_from_the_kernel(tmp_path: Path, files: dict, expected: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert power(tmp_path) == expected


def test_free_memory_is_read_from_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 4096000 kB\nMemAvailable: 2048000 kB\n")
    assert free_memory(tmp_path / "meminfo") == 2000
    assert free_memory(tmp_path / "none") == 0
