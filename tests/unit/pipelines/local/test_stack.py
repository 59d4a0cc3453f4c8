"""Templates for the emulators, the devices of a fleet, and one run with them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from support.paths import APPS

from edge.training.app_bundle import load_app
from pipelines.local import daemon, emulator
from pipelines.local.cloud import LocalCloud
from pipelines.local.federate import Federation, Progress
from pipelines.local.fleet import (
    APPS_KEPT,
    await_devices,
    check_alive,
    device_config,
    enrolled,
    fleet_log,
    heartbeat_seconds,
    install,
    side_by_side,
)
from pipelines.local.home import CloudInfo, Home, LocalCloudError
from pipelines.local.sagemaker.service import SageMaker
from pipelines.local.stack import FRESH_SECONDS, NOT_EMULATED, reduce
from pipelines.run.report import RunReport


@pytest.fixture
def cloud(tmp_path: Path) -> LocalCloud:
    info = CloudInfo(
        pid=os.getpid(), gateway_port=1, mqtt_port=8883, sagemaker_port=3, started_at=0.0
    )
    return LocalCloud(Home(tmp_path), info, None)


def test_a_template_loses_what_is_not_emulated_and_dependencies_on_it() -> None:
    template = {
        "Parameters": {"P": {}},
        "Resources": {
            "Budget": {"Type": "AWS::Budgets::Budget"},
            "Bucket": {"Type": "AWS::S3::Bucket", "DependsOn": "Budget"},
            "Table": {"Type": "AWS::DynamoDB::Table", "DependsOn": ["Bucket", "Budget"]},
        },
    }
    reduced = reduce(template)
    assert {name: r["DependsOn"] for name, r in reduced["Resources"].items()} == {
        "Bucket": [],
        "Table": ["Bucket"],
    }
    assert reduced["Parameters"] == {"P": {}}
    assert template["Resources"]["Bucket"]["DependsOn"] == "Budget"
    assert all(reason for reason in NOT_EMULATED.values())


def test_each_device_has_a_partition_and_a_home_of_its_own(cloud: LocalCloud) -> None:
    config = device_config(cloud, "digits", 2, 3)
    assert config.device == "digits-0002"
    assert config.node_config == {"partition-id": 2, "num-partitions": 3}
    assert (config.endpoint, config.port) == ("127.0.0.1", 8883)
    assert config.worker_env["OMP_NUM_THREADS"] == "1"
    assert enrolled(cloud, "digits") == 0
    Path(config.home).mkdir(parents=True)
    (Path(config.home) / "device.json").write_text("{}")
    assert enrolled(cloud, "digits") == 1


def test_an_app_is_installed_whole_once_and_old_ones_go(tmp_path: Path) -> None:
    app = load_app(APPS / "digits")
    apps = tmp_path / "apps"
    for number in range(APPS_KEPT):
        (apps / f"old-{number}").mkdir(parents=True)
        os.utime(apps / f"old-{number}", (number, number))
    install(app, apps)
    install(app, apps)
    names = {path.name for path in apps.iterdir()}
    assert names == {app.digest(), *(f"old-{number}" for number in range(1, APPS_KEPT))}
    copies = {f.relative_to(apps / app.digest()) for f in (apps / app.digest()).rglob("*.*")}
    assert copies == {file.relative_to(app.folder) for file in app.files()}


class Process:
    def __init__(self, code: int | None) -> None:
        self.returncode = code

    def poll(self) -> int | None:
        return self.returncode


def test_a_fleet_whose_process_ended_is_named_with_its_log(cloud: LocalCloud) -> None:
    check_alive(None, cloud, "digits")
    check_alive(Process(None), cloud, "digits")  # type: ignore[arg-type]
    with pytest.raises(LocalCloudError, match=r"ended with code 1: see .*fleet-digits.log"):
        check_alive(Process(1), cloud, "digits")  # type: ignore[arg-type]
    assert fleet_log(cloud, "digits").name == "fleet-digits.log"


class Table:
    """DynamoDB with rows of the devices table."""

    def __init__(self, *last_seen: float) -> None:
        self.items = [
            {
                "fleet": {"S": "digits"},
                "device": {"S": f"d{number}"},
                "last_seen": {"N": str(seconds * 1000)},
                "body": {"S": "{}"},
            }
            for number, seconds in enumerate(last_seen)
        ]

    def get_paginator(self, _: str) -> Table:
        return self

    def paginate(self, **query: Any) -> list[dict]:
        (wanted,) = query["ExpressionAttributeValues"].values()
        return [{"Items": [row for row in self.items if row["fleet"] == wanted]}]


def test_devices_are_awaited_until_enough_have_been_heard_of(cloud: LocalCloud) -> None:
    await_devices(cloud, "digits", 2, Table(10.0, 11.0, 1.0), since=10.0)
    with pytest.raises(LocalCloudError, match="Not all 3 devices of fleet digits came up"):
        await_devices(cloud, "digits", 3, Table(10.0, 11.0, 1.0), since=10.0, seconds=0.01)


def test_a_federation_says_whether_the_user_stopped_it() -> None:
    assert not Federation(RunReport()).interrupted
    Progress().on_start("arn")
    Progress().on_stop()


def test_the_daemon_refuses_a_port_that_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "port_in_use", lambda _: True)
    with pytest.raises(LocalCloudError, match="Port 4566 is in use"):
        daemon.Daemon(Home(tmp_path), 4566).serve()


def test_an_emulator_that_ended_is_named_with_its_log(cloud: LocalCloud) -> None:
    with pytest.raises(LocalCloudError, match=r"did not start: see .*ministack.log"):
        emulator.await_emulator(Process(1), cloud.home, cloud.info)  # type: ignore[arg-type]
    assert emulator.MODULE.endswith(".ministack")
    assert SageMaker.stop


def test_local_devices_are_heard_of_three_times_while_they_count_as_fresh() -> None:
    """A busy machine delays a heartbeat or two; all together leave it time to work."""
    for devices in (1, 8, 64, 1_000):
        assert 3 * heartbeat_seconds(devices) <= float(FRESH_SECONDS)
    assert heartbeat_seconds(8) == 2.0
    assert 1_000 / heartbeat_seconds(1_000) < 100


def test_ctrl_c_does_not_wait_until_a_thousand_devices_are_enrolled() -> None:
    begun: list[Any] = []

    def interrupted(device: Any) -> None:
        begun.append(device)
        time.sleep(0.01)
        raise KeyboardInterrupt

    devices: Any = range(1_000)
    with pytest.raises(KeyboardInterrupt):
        side_by_side(interrupted, devices)
    assert len(begun) < 100
