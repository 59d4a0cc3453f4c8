"""Faults of processes: killed, suspended, duplicated, without disk space, with a wrong clock."""

from __future__ import annotations

import contextlib
import random
import resource
import subprocess
import time
from collections.abc import Callable

import psutil

from pipelines.chaos.faults.fault import Act
from pipelines.chaos.stage import Stage
from pipelines.chaos.world import HOSTILE, World
from pipelines.local.processes import child_command

HOUR, YEAR = 3600.0, 365 * 86_400.0


def kill_task(module: str, times: int = 1) -> Act:
    """Kill a server or proxy task; ``times``: also those that replace it."""

    def act(stage: Stage) -> None:
        last = 0
        for _ in range(times):
            task = stage.task(module, other_than=last)
            if task is None:
                return
            time.sleep(stage.random_duration(0, 1.5))
            stage.note(f"kill {module.rpartition('.')[2]} {task.pid}")
            last = task.pid
            with contextlib.suppress(psutil.NoSuchProcess):
                task.kill()

    return act


def pause(find: Callable[[Stage], psutil.Process | None], name: str, longest: float) -> Act:
    """Suspend a process for at most ``longest`` seconds."""

    def act(stage: Stage) -> None:
        process = find(stage)
        if process is None:
            return
        seconds = stage.random_duration(0.5, longest)
        stage.note(f"pause {name} for {seconds:.1f} s")
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
            time.sleep(seconds)
            process.resume()

    return act


def any_agent(stage: Stage) -> psutil.Process | None:
    """A random honest device's agent."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return stage.world.devices.get(stage.honest_device())
    return None


def any_worker(stage: Stage) -> psutil.Process | None:
    """A random honest device's training process, if there is one within five seconds."""
    device, deadline = stage.honest_device(), time.monotonic() + 5
    while time.monotonic() < deadline:
        if workers := stage.world.devices.workers(device):
            return workers[-1]
        time.sleep(0.05)
    return None


def kill_worker(stage: Stage) -> None:
    """Kill a training process."""
    worker = any_worker(stage)
    if worker is not None:
        stage.note(f"kill worker {worker.pid}")
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()


def reboot(stage: Stage) -> None:
    """Kill a device and its worker, and start it again after at most two seconds."""
    device, seconds = stage.honest_device(), stage.random_duration(0, 2)
    stage.note(f"reboot of device {device}, {seconds:.1f} s")
    stage.world.devices.kill(device)
    time.sleep(seconds)
    stage.world.devices.start(device)


def cut_power(stage: Stage) -> None:
    """Cut the power of device 0 up to three times: what it has not synced is lost."""
    devices = stage.world.devices
    for _ in range(stage.rng.randint(1, 3)):
        devices.kill(0)
        try:
            if devices.disk is None:
                stage.note("device 0 killed; no file system can be mounted, so its writes are kept")
            elif failed := devices.disk.cut_power():
                raise AssertionError(f"the disk of device 0 could not be cut: {failed}")
            else:
                stage.note("power cut of device 0, with the loss of what was not synced")
            time.sleep(stage.random_duration(0, 1))
        finally:
            devices.start(0)
        time.sleep(stage.random_duration(0.5, 3))


def lose_device(stage: Stage) -> None:
    """Cut a device's power until the run has ended."""
    device = stage.honest_device()
    stage.note(f"device {device} is gone until the end")
    stage.world.devices.kill(device)
    stage.wait_for_end()
    stage.world.devices.start(device)


def second_task(module: str) -> Act:
    """Start another task for the same work, as a retry that overlaps with the first does."""

    def act(stage: Stage) -> None:
        first = stage.task(module)
        if first is None:
            return
        with contextlib.suppress(psutil.Error):
            environment = first.environ()
            time.sleep(stage.random_duration(0, 1.5))
            stage.note(f"a second {module.rpartition('.')[2]}")
            _run_to_end(stage, module, environment)

    return act


def _run_to_end(stage: Stage, module: str, environment: dict[str, str]) -> None:
    """Run a task beside the run's own; it must end by itself."""
    with (stage.world.home.logs / "second.log").open("ab") as log:
        process = subprocess.Popen(
            child_command(module),
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        process.wait(stage.patience(25))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(f"the second {module} did not end") from None


def disk_full(stage: Stage) -> None:
    """Let no file of a device grow, as on a full disk."""
    device, seconds = stage.honest_device(), stage.random_duration(1, 5)
    stage.note(f"disk of device {device} full for {seconds:.1f} s")
    _limit_file_size(stage, device, 0)
    time.sleep(seconds)
    _limit_file_size(stage, device, resource.RLIM_INFINITY)


def _limit_file_size(stage: Stage, device: int, size: int) -> None:
    devices = stage.world.devices
    for process in [devices.get(device), *devices.workers(device)]:
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def remove_app(stage: Stage) -> None:
    """Remove the app from a device whose heartbeat has promised it, until the run has ended."""
    devices, app = stage.world.devices, stage.world.app
    installed = devices.configs[stage.honest_device()].apps_dir / app.digest()
    away = installed.with_name(".away")
    while not stage.has_server() and not stage.has_ended():
        time.sleep(0.05)
    stage.note(f"the app is gone from {installed.parent.parent.name}")
    installed.rename(away)
    try:
        stage.wait_for_end()
    finally:
        away.rename(installed)


def skew_clock(world: World, rng: random.Random) -> Callable[[], None]:
    """Set a device's clock an hour or a year ahead or back."""
    device, seconds = rng.randrange(HOSTILE), rng.choice((-YEAR, -HOUR, HOUR, YEAR))
    world.devices.stop(device)
    world.devices.start(device, seconds)
    return lambda: world.devices.stop(device)
