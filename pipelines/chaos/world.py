"""What faults act on: a local cloud and five devices, each a process of its own behind links."""

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
from pipelines.chaos.devices.behaviours import HONEST
from pipelines.chaos.devices.processes import DeviceProcesses
from pipelines.chaos.injected import ControlFile
from pipelines.chaos.links import Link
from pipelines.devices.provisioning import enrol
from pipelines.local.cloud import LocalCloud
from pipelines.local.fleet import FleetClients, await_devices, device_config, install
from pipelines.local.home import Home
from pipelines.run.option_table import RunOptions
from pipelines.run.plan import RunPlan, plan

APP = Path(__file__).parent / "app"
FLEET = "chaos"
DEVICES = 5
HOSTILE = DEVICES - 1
"""Index of the hostile device; the others are honest."""
PHASE_SECONDS = 3.0
"""A device that is away for a whole run costs six phases, and a seed has 30 seconds."""
ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class ChaosClients:
    """AWS and MLflow clients of the suite, on the local cloud."""

    fleet: FleetClients
    s3: Any
    sagemaker: Any
    sqs: Any
    mlflow: Any


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
        for index, config in enumerate(self.devices.configs):
            install(self.app, config.apps_dir)
            self.devices.start(index)
        dynamodb = self.clients.fleet.dynamodb
        await_devices(self.cloud, FLEET, DEVICES, dynamodb, time.time() - 2.0)

    def plan(self, seed: int) -> RunPlan:
        """The run of a seed: it wants all five devices, and two are its quorum."""
        return plan(
            self.app,
            RunOptions(
                devices=DEVICES,
                rounds=ROUNDS,
                devices_per_proxy=3,
                phase_seconds=PHASE_SECONDS,
                quorum=2,
                over_selection=1.0,
                fleet=FLEET,
                seed=seed,
                deadline_seconds=20.0,
            ),
        )


@contextlib.contextmanager
def running_world(folder: Path, clients: Callable[[], ChaosClients]) -> Iterator[World]:
    """Start everything in a folder; end it after the block, while which the environment leads to
    the cloud. ``clients`` is called once it does.
    """
    home, broker, s3, app = Home(folder), Link(), Link(), load_app(APP)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        for link in (broker, s3):
            link.start()
            stack.callback(link.stop)
        errors = ControlFile(folder / "chaos.json", s3.port)
        with _environment(errors.environment()):
            cloud = stack.enter_context(LocalCloud.start(home))
        broker.upstream, s3.upstream = cloud.info.mqtt_port, cloud.info.gateway_port
        stack.enter_context(cloud.reached())
        made = clients()
        devices = DeviceProcesses(_enrol(cloud, made.fleet, broker.port, app), HOSTILE, folder)
        stack.callback(devices.end)
        began = time.time()
        for index in range(DEVICES):
            devices.start(index)
        await_devices(cloud, FLEET, DEVICES, made.fleet.dynamodb, began)
        yield World(
            cloud=cloud,
            clients=made,
            app=app,
            devices=devices,
            broker=broker,
            s3=s3,
            errors=errors,
        )


def _enrol(
    cloud: LocalCloud, clients: FleetClients, broker: int, app: FlowerApp
) -> list[DeviceConfig]:
    """Enrol the devices, behind the broker's link, and install the app on them."""
    endpoint, configs = cloud.endpoint(clients.kms), []
    for index in range(DEVICES):
        config = device_config(cloud, FLEET, index, DEVICES)
        config = msgspec.structs.replace(config, port=broker, heartbeat_seconds=1.0)
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
