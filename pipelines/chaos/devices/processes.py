"""The device processes of the fault suite: started, killed and restarted by the faults."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import psutil

from edge.config import DeviceConfig
from edge.files import write_atomically
from pipelines.local.processes import end, spawn


class DeviceProcesses:
    """One process for each device. Devices are known by their index."""

    def __init__(self, configs: list[DeviceConfig], hostile: int, folder: Path) -> None:
        """``hostile``: index of the device that misbehaves. ``folder``: the local cloud's home."""
        self.configs = configs
        self._hostile = hostile
        self._folder = folder
        self._behaviour = folder / "behaviour"
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, index: int, skew: float = 0.0) -> None:
        """Start a device unless it runs; its clock is ``skew`` seconds fast."""
        process = self._processes.get(index)
        if process is not None and process.poll() is None:
            return
        file = str(Path(self.configs[index].home) / "device.json")
        module, arguments = "edge.agent", [file]
        if index == self._hostile:
            module = "pipelines.chaos.devices.hostile"
            arguments = [file, str(self._behaviour)]
        elif skew:
            module, arguments = "pipelines.chaos.devices.skewed", [str(skew), file]
        log = self._folder / "logs" / f"device-{index}.log"
        self._processes[index] = spawn(module, arguments, {}, log)

    def get(self, index: int) -> psutil.Process:
        """A device's process; raises psutil.NoSuchProcess when it has ended."""
        return psutil.Process(self._processes[index].pid)

    def workers(self, index: int) -> list[psutil.Process]:
        """A device's training processes."""
        try:
            return list(self.get(index).children(recursive=True))
        except psutil.NoSuchProcess:
            return []

    def stop(self, index: int) -> None:
        """End a device in order."""
        end(self._processes[index], 5.0)

    def kill(self, index: int) -> None:
        """Kill a device with its workers, as a power cut does."""
        process = self._processes[index]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def behave(self, behaviour: str) -> None:
        """Set what the hostile device does from now on."""
        write_atomically(self._behaviour, behaviour.encode(), durable=False)

    def end(self) -> None:
        """End all devices, suspended ones too."""
        for process in self._processes.values():
            with contextlib.suppress(psutil.Error):
                psutil.Process(process.pid).resume()
            end(process, 5.0)
