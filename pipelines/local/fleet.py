"""The devices of a local cloud: enrolled through the IoT API, one process for all of them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge.config import DeviceConfig
from edge.identity.credentials import Credentials
from edge.protocol.names import check_name
from edge.training.app_bundle import FlowerApp
from fl_runtime.run.devices import DeviceTable
from pipelines.devices.provisioning import enrol
from pipelines.local.cloud import LocalCloud
from pipelines.local.home import LocalCloudError, locked
from pipelines.local.processes import end, spawn

HEARTBEAT_SECONDS = 2.0
APPS_KEPT = 5


@contextlib.contextmanager
def running_fleet(
    cloud: LocalCloud, fleet: str, devices: int, app: FlowerApp | None, iot: Any
) -> Iterator[subprocess.Popen[bytes] | None]:
    """Enrol ``devices`` devices, install the app on them, and run them for the time of the block.

    Each gets ``partition-id`` and ``num-partitions``, as Flower's simulation gives them. Devices
    that
    stand already (``local up --app``) are used as they are; then there is no process to yield.
    """
    configs = [device_config(cloud, fleet, index, devices) for index in range(devices)]
    endpoint = cloud.endpoint()
    for config in configs:
        enrol(iot, cloud.deployment.device_policy, endpoint, config)
        if app is not None:
            install(app, config.apps_dir)
    files = [str(Path(config.home) / "device.json") for config in configs]
    with contextlib.ExitStack() as stack:
        try:
            # Two processes for one device would take its connection from each other for ever.
            stack.enter_context(
                locked(
                    cloud.home.devices / fleet / "lock",
                    f"The devices of fleet {fleet} are running.",
                )
            )
        except LocalCloudError:
            yield None
            return
        process = spawn(
            "edge.agent.fleet", files, {}, cloud.home.logs / f"fleet-{fleet}.log", leash=True
        )
        try:
            yield process
        finally:
            end(process)


def enrolled(cloud: LocalCloud, fleet: str) -> int:
    """How many devices of a fleet have been enrolled here."""
    folder = cloud.home.devices / fleet
    return len(list(folder.glob("*/device.json"))) if folder.is_dir() else 0


def install(app: FlowerApp, apps: Path) -> None:
    """Put an app on a device, as a Greengrass deployment does; the name appears when all of it is
    there.
    """
    target = apps / app.digest()
    if target.is_dir():
        return
    part = apps / f".{app.digest()}.part"
    shutil.rmtree(part, ignore_errors=True)
    for file in app.files():
        place = part / file.relative_to(app.folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    part.rename(target)
    old = sorted(
        (path for path in apps.iterdir() if path.is_dir() and not path.name.startswith(".")),
        key=lambda path: path.stat().st_mtime,
    )
    for path in old[:-APPS_KEPT]:
        shutil.rmtree(path)


def check_alive(process: subprocess.Popen[bytes] | None, cloud: LocalCloud, fleet: str) -> None:
    """Raises LocalCloudError when the fleet's process has ended."""
    if process is not None and process.poll() is not None:
        raise LocalCloudError(
            f"The devices ended with code {process.returncode}: see {cloud.home.logs / f'fleet-{fleet}.log'}."
        )


def await_devices(
    cloud: LocalCloud, fleet: str, count: int, dynamodb: Any, since: float, seconds: float = 30.0
) -> None:
    """Wait until so many devices have been heard of since a moment; raises LocalCloudError."""
    table = DeviceTable(dynamodb, cloud.deployment.devices_table)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if sum(status.last_seen >= since for status in table.fleet(fleet)) >= count:
            return
        time.sleep(0.2)
    raise LocalCloudError(
        f"Not all {count} devices of fleet {fleet} came up: see {cloud.home.logs / f'fleet-{fleet}.log'}."
    )


def device_config(cloud: LocalCloud, fleet: str, index: int, count: int) -> DeviceConfig:
    """A device's configuration. Training uses one thread: the devices share this machine."""
    name = check_name("device", f"{fleet}-{index:04d}")
    home = cloud.home.devices / fleet / name
    credentials = Credentials(home / "credentials")
    return DeviceConfig(
        fleet=fleet,
        device=name,
        endpoint="127.0.0.1",
        port=cloud.info.mqtt_port,
        certificate=str(credentials.certificate),
        private_key=str(credentials.private_key),
        ca=str(home / "ca.pem"),
        home=str(home),
        heartbeat_seconds=HEARTBEAT_SECONDS,
        provisioning_template=cloud.deployment.provisioning_template,
        node_config={"partition-id": index, "num-partitions": count},
        worker_env={"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    )
