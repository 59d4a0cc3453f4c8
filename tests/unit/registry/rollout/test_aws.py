"""What a rollout reads of the fleet, and the placeholder that AWS IoT presigns. The store and the
jobs have contract suites.
"""

from __future__ import annotations

from edge.protocol.messages import Heartbeat
from fl_runtime.run.devices import DeviceStatus
from registry.rollout.aws import HeartbeatFleet, object_url
from registry.rollout.model import DeviceState


def test_a_device_is_offline_once_its_heartbeat_is_old_malformed_or_its_last_will() -> None:
    devices = [
        DeviceStatus(fleet="f", device=name, last_seen=seen, heartbeat=beat)
        for name, seen, beat in [
            ("here", 95.0, Heartbeat(state="idle", model="x/1")),
            ("old", 5.0, Heartbeat(state="idle", model="x/1")),
            ("gone", 95.0, Heartbeat(state="offline")),
            ("odd", 95.0, None),
        ]
    ]
    now = [100.0]
    fleet = HeartbeatFleet(lambda _: devices, lambda: now[0], 90.0)
    assert fleet.devices("f") == {
        "here": DeviceState("x/1", online=True),
        "old": DeviceState("x/1", online=False),
        "gone": DeviceState("", online=False),
        "odd": DeviceState("", online=False),
    }
    now[0] = 200.0
    assert not fleet.devices("f")["here"].online


def test_the_placeholder_names_bucket_key_and_region() -> None:
    assert object_url("b", "eu-west-1")("runs/r/model/m.safetensors") == (
        "${aws:iot:s3-presigned-url:"
        "https://s3.eu-west-1.amazonaws.com/b/runs/r/model/m.safetensors}"
    )
