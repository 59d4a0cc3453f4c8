"""The transport of a device with its own certificate, when nobody answers."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from fakes.certificates import self_signed
from fakes.devices import device_config

from edge.config import DeviceConfig
from edge.transports import TransportError, mqtt, mqtt_connection
from edge.transports.mqtt import MqttTransport


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeviceConfig:
    """A device whose endpoint is a port where nobody listens."""
    monkeypatch.setattr(mqtt, "PUBLISH_SECONDS", 0.05)
    monkeypatch.setattr(mqtt_connection, "CONNECT_SECONDS", 0.3)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    return device_config(tmp_path, port=port, **self_signed(tmp_path))


def test_without_a_broker_it_says_so_and_lets_the_client_go(config: DeviceConfig) -> None:
    async def main() -> None:
        transport = MqttTransport(config, will=("fl/f/d0/heartbeat", b"{}"))
        with pytest.raises(TransportError, match="No connection to the IoT endpoint") as failed:
            await transport.connect(["fl/f/d0/command"], lambda topic, payload: None)
        assert (failed.value.exit_code, failed.value.code) == (1, "transport")
        with pytest.raises(TransportError, match="Publishing to fl/f/d0/reply failed"):
            await transport.publish("fl/f/d0/reply", b"{}")

    asyncio.run(main())
    assert mqtt_connection._unstopped == [], "the client had stopped before it was forgotten"


def test_a_cancelled_connection_lets_the_client_go(config: DeviceConfig) -> None:
    async def main() -> None:
        transport = MqttTransport(config, will=("fl/f/d0/heartbeat", b"{}"))
        connecting = asyncio.ensure_future(transport.connect([], lambda topic, payload: None))
        await asyncio.sleep(0.05)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting

    asyncio.run(main())
    assert mqtt_connection._unstopped == []
