"""The device processes of the fault suite: started, killed and restarted by the faults."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from edge.config import DeviceConfig
from edge.files import write_atomically
from pipelines.chaos.devices.disk import ImageDisk
from pipelines.local.processes import end, spawn


class DeviceProcesses:
    """One process for each device. Devices are known by their index."""

    def __init__(
        self,
        configs: list[DeviceConfig],
        hostile: Sequence[int],
        folder: Path,
        disk: ImageDisk | None = None,
    ) -> None:
        """Args:
        configs: The devices.
        hostile: Indexes of those that misbehave.
        folder: The local cloud's home.
        disk: That of device 0; None when it is a part of the machine's.

        """
        self.configs = configs
        self._hostile = hostile
        self._folder = folder
        self._behaviour = folder / "behaviour"
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._starts: collections.Counter[int] = collections.Counter()
        # Linux ends a child with the thread that started it, and a fault's thread ends soon:
        # https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="devices")
        self.disk = disk

    def start(self, index: int, skew: float = 0.0) -> None:
        """Start a device unless it runs; its clock is ``skew`` seconds fast."""
        process = self._processes.get(index)
        if process is not None and process.poll() is None:
            return
        file = str(Path(self.configs[index].home) / "device.json")
        module, arguments = "edge.agent", [file]
        self._starts[index] += 1
        if index in self._hostile:
            module = "pipelines.chaos.devices.hostile"
            arguments = [file, str(self._behaviour)]
        elif skew:
            module, arguments = "pipelines.chaos.devices.skewed", [str(skew), file]
        log = self._folder / "logs" / f"device-{index}.log"
        starting = self._starter.submit(spawn, module, arguments, {}, log)
        self._processes[index] = starting.result()

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

    def running(self) -> list[int]:
        """The devices whose process runs."""
        return [index for index, one in self._processes.items() if one.poll() is None]

    def forget_trainings(self) -> None:
        """Count trainings and starts from now on."""
        self._starts.clear()
        for index in range(len(self.configs)):
            trainings(self._folder, index).unlink(missing_ok=True)

    def trained_again(self) -> Iterator[str]:
        """A sentence for each message that a device trained for more than once, and more than once
        after each of its starts: the power may have gone before the reply was on the disk.
        """
        for index in range(len(self.configs)):
            if not (file := trainings(self._folder, index)).is_file():
                continue
            for message, count in collections.Counter(file.read_text().split()).items():
                if count > 1 + self._starts[index]:
                    yield f"device {index} trained {count} times for the message {message}"

    def behave(self, behaviour: str) -> None:
        """Set what the hostile devices do from now on."""
        write_atomically(self._behaviour, behaviour.encode(), durable=False)

    def end(self) -> None:
        """End all devices, suspended ones too."""
        for process in self._processes.values():
            with contextlib.suppress(psutil.Error):
                psutil.Process(process.pid).resume()
            end(process, 5.0)
        self._starter.shutdown()


def trainings(folder: Path, index: int) -> Path:
    """The file to which the app on a device writes the id of each message that it trains for."""
    return folder / f"trainings-{index}"
