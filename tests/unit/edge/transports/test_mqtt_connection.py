"""A client is never forgotten while it is connected: that would take the process with it."""

from __future__ import annotations

import asyncio
import weakref

import pytest

from edge.transports import mqtt_connection
from edge.transports.mqtt_connection import stop_client


class Client:
    """An mqtt5 client that stops when it is told to, or never."""

    def __init__(self, stopped: asyncio.Event | None = None) -> None:
        self.stopped, self.stops = stopped, 0

    def stop(self) -> None:
        self.stops += 1
        if self.stopped is not None:
            asyncio.get_running_loop().call_later(0.01, self.stopped.set)


def test_stopping_waits_until_the_client_has_stopped() -> None:
    async def main() -> None:
        stopped = asyncio.Event()
        client = Client(stopped)
        await stop_client(client, stopped)
        assert (client.stops, stopped.is_set()) == (1, True)
        kept = weakref.ref(client)
        del client
        assert kept() is None, "a client that has stopped may be forgotten"

    asyncio.run(main())


def test_a_client_that_does_not_stop_in_time_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_connection, "STOP_SECONDS", 0.01)
    client = weakref.ref(kept := Client())
    asyncio.run(stop_client(kept, asyncio.Event()))
    del kept
    assert client() is not None
    mqtt_connection._unstopped.remove(client())
