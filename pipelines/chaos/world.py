"""What chaos happens to: a local cloud, four honest devices and a hostile one, each a process of
its own, behind links.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil

from edge.config import DeviceConfig
from edge.training.app_bundle import load_app
from pipelines.chaos.injected import VARIABLE, Control, Rule
from pipelines.chaos.links import Link
from pipelines.devices.provisioning import enrol
from pipelines.local.cloud import LocalCloud
from pipelines.local.fleet import await_devices, device_config, install
from pipelines.local.home import Home
from pipelines.local.processes import end, spawn
from pipelines.run.option_table import RunOptions
from pipelines.run.plan import RunPlan, plan

APP = Path(__file__).parent / "app"
FLEET = "chaos"
DEVICES = 5
HOSTILE = DEVICES - 1
PHASE_SECONDS = 3.0
"""A device that is gone for a whole run costs six of them, and a seed has 30 seconds."""
ROUNDS = 3


class World:
    """Use :meth:`made`. Devices are known by their index; the last is the hostile one."""

    def __init__(
        self, cloud: LocalCloud, home: Home, broker: Link, s3: Link, control: Path
    ) -> None:
        self.cloud = cloud
        self.home = home
        self.broker = broker
        self.s3 = s3
        self._control = control
        self._rules: list[Rule] = []
        self.app = load_app(APP)
        self.configs: list[DeviceConfig] = []
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @classmethod
    @contextlib.contextmanager
    def made(cls, folder: Path) -> Iterator[World]:
        """Everything started, and ended after the block; the environment leads to the cloud."""
        home, broker, s3, control = Home(folder), Link(), Link(), folder / "chaos.json"
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            for link in (broker, s3):
                link.start()
                stack.callback(link.stop)
            control.write_bytes(msgspec.json.encode(Control(s3=f"http://127.0.0.1:{s3.port}")))
            before = os.environ.get(VARIABLE)
            os.environ[VARIABLE] = str(control)
            try:
                cloud = stack.enter_context(LocalCloud.start(home))
            finally:
                os.environ.pop(VARIABLE) if before is None else os.environ.update(
                    {VARIABLE: before}
                )
            broker.upstream, s3.upstream = cloud.info.mqtt_port, cloud.info.gateway_port
            stack.enter_context(cloud.reached())
            world = cls(cloud, home, broker, s3, control)
            stack.callback(world.end)
            world._enrol()
            yield world

    def _enrol(self) -> None:
        from fl_runtime.run.aws import client

        began, endpoint, iot = time.time(), self.cloud.endpoint(), client("iot")
        for index in range(DEVICES):
            config = msgspec.structs.replace(
                device_config(self.cloud, FLEET, index, DEVICES),
                port=self.broker.port,
                heartbeat_seconds=1.0,
            )
            enrol(iot, self.cloud.deployment.device_policy, endpoint, config)
            install(self.app, config.apps_dir)
            self.configs.append(config)
            self.start(index)
        await_devices(self.cloud, FLEET, DEVICES, client("dynamodb"), began)

    def start(self, index: int, skew: float = 0.0) -> None:
        """Start a device's process, if it does not run."""
        process = self._processes.get(index)
        if process is not None and process.poll() is None:
            return
        file = str(Path(self.configs[index].home) / "device.json")
        log = self.home.logs / f"device-{index}.log"
        if index == HOSTILE:
            self._processes[index] = spawn(
                "pipelines.chaos.hostile", [file, str(self.behaviour_file)], {}, log
            )
        elif skew:
            self._processes[index] = spawn("pipelines.chaos.skewed", [str(skew), file], {}, log)
        else:
            self._processes[index] = spawn("edge.agent", [file], {}, log)

    def device(self, index: int) -> psutil.Process:
        """A device's process."""
        return psutil.Process(self._processes[index].pid)

    def stop(self, index: int) -> None:
        """End a device in order."""
        end(self._processes[index], 5.0)

    def kill(self, index: int) -> None:
        """End a device as a power cut does, with its workers."""
        process = self._processes[index]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def workers(self, index: int) -> list[psutil.Process]:
        """A device's training processes."""
        try:
            return list(self.device(index).children(recursive=True))
        except psutil.NoSuchProcess:
            return []

    def tasks(self, module: str, run: str) -> list[psutil.Process]:
        """The run's server or proxy tasks."""
        found = []
        for process in psutil.Process(self.cloud.info.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if module in process.cmdline() and process.environ().get("MLEDGEOPS_RUN") == run:
                    found.append(process)
        return found

    @property
    def behaviour_file(self) -> Path:
        """What the hostile device does."""
        return self.home.root / "behaviour"

    def behave(self, behaviour: str) -> None:
        """Tell the hostile device what to do from now on."""
        part = self.behaviour_file.with_suffix(".part")
        part.write_text(behaviour)
        part.replace(self.behaviour_file)

    @contextlib.contextmanager
    def failing(self, *rules: Rule) -> Iterator[None]:
        """AWS's answers to the tasks go wrong for the time of the block."""
        self._write([*self._rules, *rules])
        try:
            yield
        finally:
            self._write([rule for rule in self._rules if rule not in rules])

    def _write(self, rules: list[Rule]) -> None:
        self._rules = rules
        part = self._control.with_suffix(".part")
        part.write_bytes(
            msgspec.json.encode(Control(s3=f"http://127.0.0.1:{self.s3.port}", rules=rules))
        )
        part.replace(self._control)

    def settle(self) -> None:
        """All devices there and honest, all links fine: how each seed begins."""
        from fl_runtime.run.aws import client

        self.behave("honest")
        self._write([])
        for index in range(DEVICES):
            if not (Path(self.configs[index].home) / "apps" / self.app.digest()).is_dir():
                install(self.app, self.configs[index].apps_dir)
            self.start(index)
        await_devices(self.cloud, FLEET, DEVICES, client("dynamodb"), time.time() - 2.0)

    def end(self) -> None:
        """End the devices."""
        for process in self._processes.values():
            with contextlib.suppress(psutil.Error):
                psutil.Process(process.pid).resume()
            end(process, 5.0)

    def plan(self, seed: int) -> RunPlan:
        """The run of a seed. It wants all five devices, and is content with two."""
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


def alive(process: psutil.Process) -> bool:
    """Whether a process runs."""
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
