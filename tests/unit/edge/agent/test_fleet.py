"""Many devices in one process: one that cannot connect does not end the others."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path

import pytest
from fakes.certificates import self_signed
from fakes.devices import device_config

from edge.agent.fleet import main, serve_fleet
from edge.transports import mqtt_connection


def test_a_device_that_cannot_connect_is_logged_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mqtt_connection, "CONNECT_SECONDS", 0.3)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    files = self_signed(tmp_path)
    configs = [
        device_config(tmp_path / name, device=name, port=port, **files) for name in ("d1", "d2")
    ]
    with caplog.at_level(logging.ERROR, logger="edge.agent.fleet"):
        asyncio.run(serve_fleet(configs))
    left_out = [record.fields["device"] for record in caplog.records]
    assert sorted(left_out) == ["d1", "d2"]


def test_a_bad_configuration_is_bad_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("edge.logs.set_up", lambda: None)
    monkeypatch.setattr("sys.argv", ["mledgeops-fleet", str(tmp_path / "none.json")])
    assert main() == 2
    assert "cannot be read" in capsys.readouterr().err
