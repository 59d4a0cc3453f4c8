"""The link between devices and cloud: it forwards, and degrades as it is told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pipelines.chaos.links import GOOD, Link, LinkCondition


class EchoServer:
    """Sends back what it receives, on a loopback port."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65_536):
                    connection.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def link() -> Iterator[Link]:
    server, link = EchoServer(), Link()
    link.upstream = server.port
    link.start()
    yield link
    link.stop()
    server.close()


def connected(link: Link) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), timeout=5)


def echoed(connection: socket.socket, data: bytes) -> bytes:
    """What comes back until the connection ends or all has come; empty for a broken one."""
    found = b""
    try:
        connection.sendall(data)
        while len(found) < len(data) and (part := connection.recv(65_536)):
            found += part
    except OSError:
        return b""
    return found


def test_a_good_link_forwards_both_ways(link: Link) -> None:
    with connected(link) as connection:
        assert echoed(connection, b"x" * 100_000) == b"x" * 100_000


def test_a_link_that_refuses_breaks_what_is_open_and_recovers(link: Link) -> None:
    with connected(link) as connection:
        assert echoed(connection, b"before") == b"before"
        with link.degraded(LinkCondition(refuses=True)):
            time.sleep(0.05)
            assert echoed(connection, b"during") == b""
            with connected(link) as refused:
                assert echoed(refused, b"new") == b""
    assert link.condition == GOOD
    with connected(link) as connection:
        assert echoed(connection, b"after") == b"after"


def test_dropping_breaks_all_open_connections_and_no_later_one(link: Link) -> None:
    with connected(link) as first, connected(link) as second:
        assert echoed(first, b"1") == echoed(second, b"1") == b"1"
        link.drop()
        time.sleep(0.05)
        assert echoed(first, b"2") == echoed(second, b"2") == b""
    with connected(link) as third:
        assert echoed(third, b"3") == b"3"


def test_a_transfer_breaks_after_the_given_bytes(link: Link) -> None:
    with link.degraded(LinkCondition(breaks_after=30_000)), connected(link) as connection:
        assert len(echoed(connection, b"x" * 200_000)) < 60_000


@pytest.mark.parametrize("condition", [LinkCondition(delay=0.1), LinkCondition(rate=50_000.0)])
def test_a_slow_link_delivers_everything_late(link: Link, condition: LinkCondition) -> None:
    began = time.monotonic()
    with link.degraded(condition), connected(link) as connection:
        assert echoed(connection, b"x" * 5_000) == b"x" * 5_000
    assert time.monotonic() - began >= 0.1


def test_without_an_upstream_a_connection_is_closed(link: Link) -> None:
    link.upstream = 1
    with connected(link) as connection:
        assert echoed(connection, b"x") == b""
