"""The devices of a local cloud: enrolled through the IoT API, all of them in one process."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from edge.config import DeviceConfig
from edge.files import replace_atomically
from edge.identity.credentials import Credentials
from edge.protocol.names import check_name
from edge.training.app_bundle import FlowerApp
from fl_runtime.run.devices import DeviceTable
from pipelines.devices.fleet_clients import FleetClients as FleetClients
from pipelines.devices.provisioning import enrol
from pipelines.local.cloud import LocalCloud
from pipelines.local.home import LocalCloudError, locked
from pipelines.local.processes import end, spawn

HEARTBEAT_SECONDS = (2.0, 15.0)
"""Seconds between a device's heartbeats: the first of a few devices, the second of very many."""
HEARTBEATS_A_SECOND = 20.0
"""Of all devices together: each costs the emulator some milliseconds."""
APPS_KEPT = 5
ENROLLED_AT_ONCE = 8
"""Enrolling a device is five calls to IoT and some writes to the disk, one after the other."""


@contextlib.contextmanager
def running_fleet(
    cloud: LocalCloud, clients: FleetClients, fleet: str, devices: int, app: FlowerApp | None
) -> Iterator[subprocess.Popen[bytes] | None]:
    """Enrol devices, install the app on them, and run them while the block lasts.

    Each device gets ``partition-id`` and ``num-partitions``, as in Flower's simulation. Where the
    fleet runs already (``local up --app``), its devices are used and None is yielded instead of
    their process.
    """
    configs = [device_config(cloud, fleet, index, devices) for index in range(devices)]
    endpoint = cloud.endpoint(clients.kms)

    def bring_up(config: DeviceConfig) -> None:
        enrol(clients.iot, cloud.deployment.device_policy, endpoint, config)
        if app is not None:
            install(app, config.apps_dir)

    side_by_side(bring_up, configs)
    files = [str(Path(config.home) / "device.json") for config in configs]
    with contextlib.ExitStack() as stack:
        lock, refusal = cloud.home.devices / fleet / "lock", f"Fleet {fleet} is running."
        try:
            # MQTT allows one connection for each client id: a second process for a device
            # would take the connection from the first, and the first would take it back.
            stack.enter_context(locked(lock, refusal))
        except LocalCloudError:
            yield None
            return
        process = spawn("edge.agent.fleet", files, {}, fleet_log(cloud, fleet), leash=True)
        stack.callback(end, process)
        yield process


def side_by_side(call: Callable[[DeviceConfig], None], configs: Sequence[DeviceConfig]) -> None:
    """Call with each device, some at once. An error or Ctrl-C leaves out those not begun."""
    pool = ThreadPoolExecutor(ENROLLED_AT_ONCE)
    try:
        for done in [pool.submit(call, config) for config in configs]:
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def fleet_log(cloud: LocalCloud, fleet: str) -> Path:
    """Log file of the fleet's process."""
    return cloud.home.logs / f"fleet-{fleet}.log"


def enrolled(cloud: LocalCloud, fleet: str) -> int:
    """Number of the fleet's devices that are enrolled in this home."""
    folder = cloud.home.devices / fleet
    return len(list(folder.glob("*/device.json"))) if folder.is_dir() else 0


def install(app: FlowerApp, apps: Path) -> None:
    """Install an app on a device, as a Greengrass deployment does (idempotent).

    Agents report the folders in ``apps``, so the app's own appears only when it is complete. The
    oldest apps above ``APPS_KEPT`` are removed.
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
    replace_atomically(part, target, durable=False)
    installed = (f for f in apps.iterdir() if f.is_dir() and not f.name.startswith("."))
    for folder in sorted(installed, key=lambda f: f.stat().st_mtime)[:-APPS_KEPT]:
        shutil.rmtree(folder)


def check_alive(process: subprocess.Popen[bytes] | None, cloud: LocalCloud, fleet: str) -> None:
    """Check that the fleet's process runs.

    Raises:
        LocalCloudError: It has ended.

    """
    if process is not None and process.poll() is not None:
        log, code = fleet_log(cloud, fleet), process.returncode
        raise LocalCloudError(f"The devices ended with code {code}: see {log}.")


def await_devices(
    cloud: LocalCloud, fleet: str, count: int, dynamodb: Any, since: float, seconds: float = 30.0
) -> None:
    """Wait until enough devices have sent a heartbeat.

    Args:
        cloud: Where they run.
        fleet: Their fleet.
        count: How many there must be.
        dynamodb: Client for the devices table.
        since: Heartbeats count from this moment, in seconds since the epoch.
        seconds: How long to wait.

    Raises:
        LocalCloudError: There were not enough in time.

    """
    table = DeviceTable(dynamodb, cloud.deployment.devices_table)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if sum(status.last_seen >= since for status in table.fleet(fleet)) >= count:
            return
        time.sleep(0.2)
    log = fleet_log(cloud, fleet)
    raise LocalCloudError(f"Not all {count} devices of fleet {fleet} came up: see {log}.")


def heartbeat_seconds(devices: int) -> float:
    """Seconds between the heartbeats of one of so many devices."""
    least, most = HEARTBEAT_SECONDS
    return min(max(least, devices / HEARTBEATS_A_SECOND), most)


def device_config(cloud: LocalCloud, fleet: str, index: int, count: int) -> DeviceConfig:
    """Configuration of device ``index`` of ``count``."""
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
        heartbeat_seconds=heartbeat_seconds(count),
        provisioning_template=cloud.deployment.provisioning_template,
        node_config={"partition-id": index, "num-partitions": count},
        # All devices share this machine: one thread for each one's training.
        worker_env={"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    )
