"""Which devices may take part in a run."""

from __future__ import annotations

import pytest
from fakes.runs import spec

from edge.protocol.messages import Heartbeat
from fl_runtime.run.devices import DeviceStatus
from fl_runtime.run.eligibility import check_requirements, eligible, left_out, meets
from fl_runtime.run.errors import RunFailed

APP = "a" * 64


def status(device: str, seen: float, **heartbeat: object) -> DeviceStatus:
    beat = Heartbeat(**{"state": "idle", "apps": [APP], "orders": 2, **heartbeat})
    return DeviceStatus(fleet="f", device=device, last_seen=seen, heartbeat=beat)


def test_only_online_devices_with_the_app_are_eligible() -> None:
    devices = [
        status("fresh", 95),
        status("stale", 5),
        status("off", 99, state="offline"),
        status("other", 99, apps=["b" * 64]),
        status("busy", 99, state="busy"),
        DeviceStatus(fleet="f", device="malformed", last_seen=99, heartbeat=None),
    ]
    assert list(eligible(devices, spec(), 100.0, 30.0)) == ["busy", "fresh"]
    assert list(eligible(devices, spec(require={"idle": True}), 100.0, 30.0)) == ["fresh"]


def test_an_agent_of_another_protocol_is_left_out_with_the_reason() -> None:
    devices = [
        status("of-0-4", 99, orders=1),
        status("of-1-0", 99, orders=3),
        status("of-today", 99),
        status("away", 5, orders=1),
        DeviceStatus(fleet="f", device="malformed", last_seen=99, heartbeat=None),
    ]
    assert list(eligible(devices, spec(), 100.0, 30.0)) == ["of-today"]
    assert left_out(devices, APP, 100.0, 30.0) == {
        "of-0-4": "its agent takes orders of protocol 1, and this cloud gives 2: update the agent",
        "of-1-0": "its agent takes orders of protocol 3, and this cloud gives 2: deploy the agent's"
        " release",
    }


def test_a_device_without_what_the_app_imports_is_left_out_before_the_run() -> None:
    devices = [
        status("bare", 99, lacks={APP: ["pandas", "xgboost"]}),
        status("of-another-app", 99, lacks={"b" * 64: ["pandas"]}),
    ]
    assert list(eligible(devices, spec(), 100.0, 30.0)) == ["of-another-app"]
    assert left_out(devices, APP, 100.0, 30.0) == {
        "bare": "the app imports pandas, xgboost, which it does not have"
    }


@pytest.mark.parametrize(
    ("require", "fits"),
    [
        ({}, True),
        ({"idle": True}, True),
        ({"power": "mains"}, True),
        ({"power": "battery"}, False),
        ({"free-memory": 512}, True),
        ({"free-memory": 2048}, False),
        ({"site": "north"}, True),
        ({"site": "south"}, False),
        ({"line": 3}, True),
        ({"other": "x"}, False),
    ],
)
def test_a_heartbeat_meets_the_requirements_or_not(require: dict, fits: bool) -> None:
    beat = Heartbeat(
        state="idle", power="mains", free_memory=1024, labels={"site": "north", "line": "3"}
    )
    check_requirements(require)
    assert meets(beat, require) is fits


@pytest.mark.parametrize(
    "require", [{"idle": "yes"}, {"power": "solar"}, {"free-memory": "lots"}, {"free-memory": True}]
)
def test_requirements_that_no_heartbeat_could_meet_are_refused(require: dict) -> None:
    with pytest.raises(RunFailed, match="must be"):
        check_requirements(require)
