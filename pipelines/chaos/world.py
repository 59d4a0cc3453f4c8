"""What faults act on: a local cloud and its devices, each a process of its own behind links."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil

from edge.config import DeviceConfig
from edge.training.app_bundle import FlowerApp, load_app
from fl_runtime.run.devices import DeviceTable
from pipelines.chaos.app.steady.model import TRAININGS
from pipelines.chaos.devices.behaviours import HONEST
from pipelines.chaos.devices.disk import ImageDisk
from pipelines.chaos.devices.processes import DeviceProcesses, trainings
from pipelines.chaos.injected import ControlFile
from pipelines.chaos.links import Link
from pipelines.chaos.mounts import private_mounts
from pipelines.chaos.slowness import Slowness
from pipelines.devices.provisioning import enrol
from pipelines.local.cloud import LocalCloud
from pipelines.local.fleet import FleetClients, device_config, install
from pipelines.local.home import Home, LocalCloudError
from pipelines.run.option_table import RunOptions
from pipelines.run.plan import RunPlan, plan

APP = Path(__file__).parent / "app"
FLEET = "chaos"
DEVICES = 5
HOSTILE = DEVICES - 1
"""Index of the hostile device; the others are honest."""
MORE = (5, 6, 7)
"""Devices that take part only when there are Sybils: one honest, and two in league with the
hostile one.
"""
SYBILS = (HOSTILE, 6, 7)
ALL = DEVICES + len(MORE)
PHASE_SECONDS = 3.0
"""A device that is away for a whole run costs six phases, and a seed has 30 seconds; on a machine
that is slow at the moment both are longer (:mod:`~pipelines.chaos.slowness`).
"""
ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class ChaosClients:
    """AWS and MLflow clients of the suite, on the local cloud."""

    fleet: FleetClients
    s3: Any
    sagemaker: Any
    sqs: Any
    mlflow: Any
    iot_data: Any
    """Publishes: a fault repeats commands with it."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Made by :func:`running_world`."""

    cloud: LocalCloud
    clients: ChaosClients
    app: FlowerApp
    devices: DeviceProcesses
    broker: Link
    """Between the devices and the MQTT broker."""
    s3: Link
    """Between everybody and S3."""
    errors: ControlFile
    """Errors in the tasks' AWS calls."""
    slowness: Slowness

    @property
    def home(self) -> Home:
        """The local cloud's home."""
        return self.cloud.home

    def tasks(self, module: str, run: str) -> list[psutil.Process]:
        """The run's server or proxy tasks that run."""
        found = []
        for process in psutil.Process(self.cloud.info.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if {module, run} <= set(process.cmdline()):
                    found.append(process)
        return found

    def reset(self) -> None:
        """Bring everything into the state in which a seed begins: all devices up, no faults."""
        self.devices.behave(HONEST)
        self.errors.clear()
        for index in set(self.devices.running()) - set(range(DEVICES)):
            self.devices.kill(index)
        for index, config in enumerate(self.devices.configs):
            install(self.app, config.apps_dir)
            if index < DEVICES:
                self.devices.start(index)
        self.await_fleet(DEVICES)
        self.devices.forget_trainings()

    def await_fleet(self, devices: int) -> None:
        """Wait until just so many devices are in the fleet.

        Raises:
            LocalCloudError: They were not, in time.

        """
        table = DeviceTable(self.clients.fleet.dynamodb, self.cloud.deployment.devices_table)
        slowness = self.slowness.now()
        deadline, fresh = time.monotonic() + 30.0 * slowness, 4.0 * slowness
        while time.monotonic() < deadline:
            if (
                sum(status.is_online(time.time(), fresh) for status in table.fleet(FLEET))
                == devices
            ):
                return
            time.sleep(0.2)
        raise LocalCloudError(f"The fleet did not come to {devices} devices.")

    def plan(self, seed: int) -> RunPlan:
        """The run of a seed: it wants all devices that are up, and two are its quorum."""
        slowness = self.slowness.now()
        return plan(
            self.app,
            RunOptions(
                devices=len(self.devices.running()),
                rounds=ROUNDS,
                devices_per_proxy=3,
                phase_seconds=PHASE_SECONDS * slowness,
                quorum=2,
                over_selection=1.0,
                fleet=FLEET,
                seed=seed,
                deadline_seconds=20.0 * slowness,
            ),
        )


@contextlib.contextmanager
def running_world(folder: Path, clients: Callable[[], ChaosClients]) -> Iterator[World]:
    """Start everything in a folder; end it after the block, while which the environment leads to
    the cloud. ``clients`` is called once it does.
    """
    home, broker, s3, app = Home(folder), Link(), Link(), load_app(APP)
    folder.mkdir(parents=True, exist_ok=True)
    refused = private_mounts()
    slowness = Slowness()
    with contextlib.ExitStack() as stack:
        slowness.start()
        stack.callback(slowness.stop)
        for link in (broker, s3):
            link.start()
            stack.callback(link.stop)
        errors = ControlFile(folder / "chaos.json", s3.port)
        with _environment(errors.environment()):
            cloud = stack.enter_context(LocalCloud.start(home))
        broker.upstream, s3.upstream = cloud.info.mqtt_port, cloud.info.gateway_port
        stack.enter_context(cloud.reached())
        made = clients()
        disk = None if refused else _disk(cloud, stack)
        devices = DeviceProcesses(_enrol(cloud, made.fleet, broker.port, app), SYBILS, folder, disk)
        stack.callback(devices.end)
        world = World(
            cloud=cloud,
            clients=made,
            app=app,
            devices=devices,
            broker=broker,
            s3=s3,
            errors=errors,
            slowness=slowness,
        )
        for index in range(DEVICES):
            devices.start(index)
        world.await_fleet(DEVICES)
        if disk is not None:
            disk.sync()
        yield world


def _disk(cloud: LocalCloud, stack: contextlib.ExitStack) -> ImageDisk | None:
    """A disk of its own for device 0, below its home; None where that fails."""
    home = Path(device_config(cloud, FLEET, 0, DEVICES).home)
    disk = ImageDisk(cloud.home.root / "device-0.ext4", home)
    if disk.make():
        return None
    stack.callback(disk.unmount)
    return disk


def _enrol(
    cloud: LocalCloud, clients: FleetClients, broker: int, app: FlowerApp
) -> list[DeviceConfig]:
    """Enrol the devices, behind the broker's link, and install the app on them."""
    endpoint, configs = cloud.endpoint(clients.kms), []
    for index in range(ALL):
        config = device_config(cloud, FLEET, index, ALL)
        environment = {**config.worker_env, TRAININGS: str(trainings(cloud.home.root, index))}
        config = msgspec.structs.replace(
            config, port=broker, heartbeat_seconds=1.0, worker_env=environment
        )
        enrol(clients.iot, cloud.deployment.device_policy, endpoint, config)
        install(app, config.apps_dir)
        configs.append(config)
    return configs


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables while the block lasts: what is started in it inherits them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
