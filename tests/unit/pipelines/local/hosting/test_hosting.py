"""A cloud that stays: which devices it brings up, which queued run it starts, when it is idle."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from fakes.clock import Clock
from fakes.objects import MemoryObjects
from support.paths import APPS

from edge.training.app_bundle import load_app
from fl_runtime.run.keys import app_key
from pipelines.devices.fleet_clients import FleetClients
from pipelines.errors import UsageError
from pipelines.local.cloud import idle_seconds
from pipelines.local.home import Home, LocalCloudError, is_free, locked, sharing
from pipelines.local.hosting import device_host
from pipelines.local.hosting.attendant import Attendant
from pipelines.local.hosting.device_host import LINGER_SECONDS, DeviceHost
from pipelines.local.hosting.tickets import Tickets
from pipelines.local.hosting.wishes import ExecutionWatch, Wish

DIGITS = load_app(APPS / "digits")


class Process:
    returncode: int | None = None

    def poll(self) -> int | None:
        return self.returncode


class Fleets:
    """Stands for :func:`running_fleet`: notes which devices are up, with what apps."""

    def __init__(self) -> None:
        self.up: dict[str, int] = {}
        self.apps: list[str] = []
        self.process = Process()

    @contextlib.contextmanager
    def running(self, cloud: Any, clients: Any, fleet: str, devices: int, app: Any) -> Any:
        self.up[fleet] = devices
        self.apps.append(app.name if app else "")
        try:
            yield self.process
        finally:
            del self.up[fleet]


@pytest.fixture
def fleets(monkeypatch: pytest.MonkeyPatch) -> Fleets:
    fleets = Fleets()
    monkeypatch.setattr(device_host, "running_fleet", fleets.running)
    return fleets


def host(tmp_path: Path, clock: Clock) -> DeviceHost:
    objects = MemoryObjects()
    objects.put(app_key(DIGITS.digest()), DIGITS.bundle())
    cloud: Any = SimpleNamespace(home=Home(tmp_path))
    clients = FleetClients(iot=None, kms=None, dynamodb=None)
    return DeviceHost(cloud, clients, objects, clock)  # type: ignore[arg-type]


WANTED = {"lab": Wish(devices=3, app=DIGITS.digest())}


def test_devices_come_for_a_run_and_go_some_time_after_it(tmp_path: Path, fleets: Fleets) -> None:
    clock = Clock()
    devices = host(tmp_path, clock)
    devices.provide(WANTED)
    assert (fleets.up, fleets.apps) == ({"lab": 3}, ["digits"])
    clock.sleep(LINGER_SECONDS - 1)
    devices.provide({})
    assert fleets.up == {"lab": 3}, "the next run finds them"
    clock.sleep(2)
    devices.provide({})
    assert fleets.up == {}


def test_a_run_with_more_devices_gets_them(tmp_path: Path, fleets: Fleets) -> None:
    devices = host(tmp_path, Clock())
    devices.provide(WANTED)
    devices.provide({"lab": Wish(devices=5, app=DIGITS.digest())})
    assert fleets.up == {"lab": 5}
    devices.close()
    assert fleets.up == {}


def test_devices_of_somebody_else_are_left_alone(tmp_path: Path, fleets: Fleets) -> None:
    clock = Clock()
    devices = host(tmp_path, clock)
    with locked(tmp_path / "devices" / "lab" / "lock", "taken"):
        devices.provide(WANTED)
        assert fleets.up == {}
    clock.sleep(10)
    devices.provide(WANTED)
    assert fleets.up == {"lab": 3}, "whoever ran them has gone, and the run goes on"


def test_devices_that_ended_are_started_again(tmp_path: Path, fleets: Fleets) -> None:
    clock = Clock()
    devices = host(tmp_path, clock)
    devices.provide(WANTED)
    fleets.process.returncode = 1
    devices.provide(WANTED)
    assert fleets.up == {}
    fleets.process = Process()
    clock.sleep(10)
    devices.provide(WANTED)
    assert fleets.up == {"lab": 3}


def test_an_app_that_is_not_there_keeps_no_other_fleet_waiting(
    tmp_path: Path, fleets: Fleets
) -> None:
    devices = host(tmp_path, Clock())
    devices.provide({"a": Wish(devices=1, app="0" * 64), **WANTED})
    assert fleets.up == {"lab": 3}


def test_executions_under_way_are_read_from_their_files(tmp_path: Path) -> None:
    watch, file = ExecutionWatch(tmp_path), tmp_path / "1.json"
    assert watch.under_way() == set()
    file.write_text(json.dumps({"arn": "arn:1", "status": "Executing"}))
    assert watch.under_way() == {"arn:1"}
    file.write_text(json.dumps({"arn": "arn:1", "status": "Succeeded"}))
    os.utime(file, ns=(1, 1))
    assert watch.under_way() == set()


def test_queued_runs_start_in_their_order_when_their_fleet_is_free(tmp_path: Path) -> None:
    tickets, started = Tickets(tmp_path), []

    def start(ticket: Any) -> str:
        started.append(ticket.name)
        return "arn:1"

    first, second = (tickets.add("p", {"Seed": 1}, fleet) for fleet in ("lab", "plant"))
    third = tickets.add("p", {}, "lab")
    tickets.call({"lab"}, start)
    assert started == [second.name]
    tickets.call(set(), start)
    assert started == [second.name, first.name]
    assert tickets.get(first.name).execution == "arn:1"
    assert [ticket.name for ticket in tickets.waiting()] == [third.name]
    assert tickets.withdraw(third.name, "not wanted").reason == "not wanted"
    assert tickets.withdraw(first.name, "not wanted").reason == "", "it has started"
    assert tickets.call(set(), start) is None


def test_a_queued_run_that_cannot_start_says_why_and_holds_nobody_up(tmp_path: Path) -> None:
    tickets = Tickets(tmp_path)

    def refused(ticket: Any) -> str:
        raise UsageError("no such pipeline")

    name = tickets.add("p", {}, "lab").name
    tickets.call(set(), refused)
    assert tickets.get(name).reason == "no such pipeline"
    assert tickets.waiting() == []
    (tmp_path / "queued-x.json").write_text("{")
    assert tickets.waiting() == []
    with pytest.raises(UsageError, match="No run waits"):
        tickets.get("queued-y")


class Service:
    """Every AWS client: empty tables and lists, and one schedule if wanted."""

    def __init__(self, schedules: list[str]) -> None:
        self.schedules = schedules

    def list_schedules(self, GroupName: str) -> dict[str, Any]:
        return {"Schedules": self.schedules}

    def get_paginator(self, _: str) -> Service:
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        return [{"Items": []}]


def looked(tmp_path: Path, schedules: list[str] | None = None, seconds: float = 60.0) -> list[str]:
    """Whether an attendant calls a cloud idle that was used two minutes ago."""
    ended: list[str] = []
    home = Home(tmp_path)
    home.used_file.touch()
    long_ago = time.time() - 120
    os.utime(home.used_file, (long_ago, long_ago))
    names = SimpleNamespace(bucket="b", runs_table="r", rollouts_table="o", schedule_group="g")
    service = Service(schedules or [])
    attendant = Attendant(
        SimpleNamespace(home=home, deployment=names),  # type: ignore[arg-type]
        lambda _: service,
        idle_seconds=seconds,
        on_idle=lambda: ended.append("idle"),
    )
    attendant._busy_at = long_ago
    attendant._look()
    return ended


def test_a_cloud_is_idle_only_when_nobody_needs_it(tmp_path: Path) -> None:
    assert looked(tmp_path) == ["idle"]
    assert looked(tmp_path, seconds=300.0) == [], "it was used two minutes ago"
    assert looked(tmp_path, ["nightly"]) == [], "a schedule will fire"
    with sharing(Home(tmp_path).users_lock):
        assert looked(tmp_path) == [], "somebody works on it"
    Tickets(Home(tmp_path).queue).add("p", {}, "lab")
    with locked(Home(tmp_path).fleet_turn("lab"), "taken"):
        assert looked(tmp_path) == [], "a run waits for its fleet"


def test_a_lock_that_several_share_is_held_alone_by_the_last(tmp_path: Path) -> None:
    file = tmp_path / "users.lock"
    with sharing(file) as alone:
        with sharing(file):
            assert not alone()
            assert not is_free(file)
        assert alone()
    assert is_free(file)


@pytest.mark.parametrize("text", ["soon", "0", "-1", "inf", "nan"])
def test_the_idle_time_is_a_number_of_seconds(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLEDGEOPS_IDLE_SECONDS", text)
    with pytest.raises(LocalCloudError, match="must be a number of seconds above 0"):
        idle_seconds()


def test_a_cloud_of_before_has_no_devices_of_its_own(tmp_path: Path) -> None:
    """``cloud.json`` of 0.4 does not say whether the cloud stays."""
    from pipelines.local.home import CloudInfo

    text = b'{"pid":1,"gateway_port":1,"mqtt_port":2,"sagemaker_port":3,"started_at":4.0}'
    assert msgspec.json.decode(text, type=CloudInfo).stays is False
