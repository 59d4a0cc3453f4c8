"""The suite's device processes: which program each runs, and that all end."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from pipelines.chaos.devices import processes
from pipelines.chaos.devices.processes import DeviceProcesses, trainings
from pipelines.chaos.devices.skewed import skewed


class Process:
    """A process that was started."""

    def __init__(self, module: str, arguments: list[str]) -> None:
        self.module, self.arguments, self.code, self.pid = module, arguments, None, 2**30
        self.starter = threading.current_thread()

    def poll(self) -> int | None:
        return self.code


class Config:
    def __init__(self, home: Path) -> None:
        self.home = str(home)


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeviceProcesses:
    def spawn(module: str, arguments: list[str], environment: dict, log: Path) -> Process:
        assert environment == {}
        assert log.parent == tmp_path / "logs"
        return Process(module, arguments)

    def end(process: Process, _: float) -> None:
        process.code = 0

    monkeypatch.setattr(processes, "spawn", spawn)
    monkeypatch.setattr(processes, "end", end)
    configs: Any = [Config(tmp_path / str(number)) for number in range(2)]
    return DeviceProcesses(configs, hostile=(1,), folder=tmp_path)


def started(devices: DeviceProcesses, index: int) -> Any:
    return devices._processes[index]


def test_each_device_runs_its_program_once(devices: DeviceProcesses, tmp_path: Path) -> None:
    devices.start(0)
    devices.start(1)
    honest, hostile = started(devices, 0), started(devices, 1)
    assert honest.module == "edge.agent"
    assert honest.arguments == [str(tmp_path / "0" / "device.json")]
    assert hostile.module == "pipelines.chaos.devices.hostile"
    devices.start(0)
    assert started(devices, 0) is honest


def test_a_device_that_ended_is_started_anew_with_a_wrong_clock(devices: DeviceProcesses) -> None:
    devices.start(0)
    devices.stop(0)
    devices.start(0, skew=3600.0)
    assert started(devices, 0).module == "pipelines.chaos.devices.skewed"
    assert started(devices, 0).arguments[0] == "3600.0"
    assert devices.workers(0) == []


def test_the_hostile_device_is_told_what_to_do(devices: DeviceProcesses, tmp_path: Path) -> None:
    devices.behave("nan")
    devices.behave("flood")
    assert (tmp_path / "behaviour").read_text() == "flood"


def test_a_device_outlives_the_fault_that_started_it(devices: DeviceProcesses) -> None:
    """Linux ends a child with the thread that started it."""
    fault = threading.Thread(target=devices.start, args=(0,))
    fault.start()
    fault.join()
    assert started(devices, 0).starter.is_alive()


def test_a_device_may_train_again_for_a_message_after_a_start_and_else_not(
    devices: DeviceProcesses, tmp_path: Path
) -> None:
    trainings(tmp_path, 0).write_text("m1\nm2\nm1\n")
    assert list(devices.trained_again()) == ["device 0 trained 2 times for the message m1"]
    devices.start(0)
    assert list(devices.trained_again()) == []
    devices.forget_trainings()
    assert not trainings(tmp_path, 0).exists()


def test_all_devices_end(devices: DeviceProcesses) -> None:
    for index in range(2):
        devices.start(index)
    devices.end()
    assert [process.code for process in devices._processes.values()] == [0, 0]


def test_a_skewed_clock_keeps_its_error() -> None:
    assert skewed(lambda: 100.0, -3600.0)() == -3500.0
