"""What a heartbeat says of the device."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fakes.devices import device_config
from fakes.objects import FileObjects
from fakes.transport import MemoryTransport

from edge.agent.heartbeat import HeartbeatSender, last_will, power
from edge.agent.spool import Outbox, Spool
from edge.identity.trust import Trust, TrustedKeys
from edge.protocol.messages import Heartbeat, seal_heartbeat, unseal
from edge.protocol.records import digest
from edge.serving.model_store import ModelStore
from edge.transports import TransportError


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


def sender(folder: Path, transport: MemoryTransport, **config: object) -> HeartbeatSender:
    settings = device_config(folder, **config)
    models = ModelStore(settings.models_dir, FileObjects(folder), Trust(TrustedKeys()), "f")
    outbox = Outbox(Spool(settings.spool_dir), transport, "fl/f/d0/reply")
    return HeartbeatSender(settings, transport, models, outbox, lambda: True)


def test_a_heartbeat_carries_state_labels_and_apps_but_no_more_apps_than_fit(
    tmp_path: Path,
) -> None:
    for number in range(60):
        (tmp_path / "apps" / digest(bytes([number]))).mkdir(parents=True)
    (tmp_path / "apps" / ".unfinished").mkdir()
    beat = sender(tmp_path, MemoryTransport(), labels={"site": "north"}).heartbeat()
    assert (beat.state, beat.labels, len(beat.apps)) == ("busy", {"site": "north"}, 50)
    assert unseal(seal_heartbeat(beat), Heartbeat) == beat


def test_a_lost_heartbeat_is_no_failure_and_sends_no_waiting_reply(tmp_path: Path) -> None:
    class Down(MemoryTransport):
        async def publish(self, topic: str, payload: bytes) -> None:
            raise TransportError("the link is down")

    assert asyncio.run(sender(tmp_path, Down()).publish()) is False


def test_the_last_will_says_offline(tmp_path: Path) -> None:
    topic, payload = last_will(device_config(tmp_path))
    assert (topic, unseal(payload, Heartbeat).state) == ("fl/f/d0/heartbeat", "offline")


def test_a_heartbeat_names_what_an_app_imports_and_the_device_lacks(tmp_path: Path) -> None:
    """So a run leaves the device out instead of failing there in each round."""
    app = tmp_path / "apps" / ("a" * 64)
    app.mkdir(parents=True)
    (app / "pyproject.toml").write_text('[tool.flwr.app.components]\nclientapp = "client:app"\n')
    (app / "client.py").write_text("import numpy, no_such_module\nfrom its_own import x\n")
    (tmp_path / "apps" / ("b" * 64)).mkdir()
    (tmp_path / "libraries").mkdir()
    beats = sender(
        tmp_path, MemoryTransport(), worker_env={"PYTHONPATH": str(tmp_path / "libraries")}
    )
    assert beats.heartbeat().lacks == {"a" * 64: ["its_own", "no_such_module"]}
    (tmp_path / "libraries" / "its_own.py").touch()
    (app / "no_such_module").mkdir()
    assert beats.heartbeat().lacks == {}
