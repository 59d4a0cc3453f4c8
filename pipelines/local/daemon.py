"""The process that is the local cloud: it owns the emulators, the ECS agent and SageMaker.

It ends on SIGTERM; with ``--leash`` also when its standard input ends, for then its starter has
gone, unless others use it by then; and without once it has been idle for ``--idle-seconds``.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from edge import logs
from edge.files import write_atomically
from edge.training.app_bundle import load_app
from fl_runtime.run.aws import client
from pipelines.deployment import Deployment
from pipelines.errors import DeployError
from pipelines.local.cloud import LocalCloud, idle_seconds
from pipelines.local.emulator import await_emulator, emulator_log, start_emulator
from pipelines.local.emulators.calls import CallLog
from pipelines.local.emulators.ecs_agent import EcsAgent
from pipelines.local.emulators.metric_filters import MetricFilters
from pipelines.local.fleet import FleetClients, running_fleet
from pipelines.local.forks.client import available, start_fork_server
from pipelines.local.home import (
    ACCOUNT,
    REGION,
    CloudInfo,
    Home,
    LocalCloudError,
    enter,
    is_free,
    locked,
)
from pipelines.local.hosting.attendant import Attendant
from pipelines.local.mlflow_store import create_store
from pipelines.local.processes import end, free_port, identity, port_in_use
from pipelines.local.sagemaker.service import SageMaker
from pipelines.local.stack import deploy
from pipelines.run.option_table import RunOptions
from pipelines.run.plan import RunPlan, plan

logger = logging.getLogger(__name__)


class Daemon:
    """One local cloud in one home."""

    def __init__(
        self,
        home: Home,
        gateway_port: int,
        standing: RunPlan | None = None,
        *,
        stays: bool = False,
        idle_seconds: float = 0.0,
    ) -> None:
        """``stays``: it outlives its starter; ``idle_seconds``: until it has been idle for so long
        (0: for ever).
        """
        self._home = home
        self._stays = threading.Event()
        if stays:
            self._stays.set()
        self._idle_seconds = idle_seconds
        self._standing = standing
        self._port = gateway_port or free_port()
        self._deployment = Deployment(account=ACCOUNT, region=REGION)
        self._stop = threading.Event()

    def stop(self, *_: Any) -> None:
        """Make :meth:`serve` return (also a signal handler)."""
        self._stop.set()

    def starter_has_gone(self) -> None:
        """End, unless the cloud is to stay or others work on it."""
        if self._stays.is_set():
            return
        if is_free(self._home.users_lock) and not self._home.stay_file.exists():
            self.stop()
        else:
            self._home.stay_file.touch()

    def serve(self) -> None:
        """Start everything, write ``cloud.json``, wait for :meth:`stop`, end everything.

        Raises:
            LocalCloudError: The cloud cannot start, or its emulator ended.

        """
        if port_in_use(self._port):
            raise LocalCloudError(
                f"Port {self._port} is in use: choose another by --gateway-port, "
                "or leave it out to get a free one."
            )
        info = CloudInfo(
            pid=os.getpid(),
            gateway_port=self._port,
            mqtt_port=free_port(),
            sagemaker_port=free_port(),
            started_at=time.time(),
            process=identity(os.getpid()),
            stays=self._stays.is_set(),
        )
        self._home.stay_file.unlink(missing_ok=True)
        enter(self._home.environment(info))
        with contextlib.ExitStack() as stack:
            info = self._start_forks(info, stack)
            stack.callback(self._home.info_file.unlink, missing_ok=True)
            emulator = self._start_services(info, stack)
            write_atomically(self._home.info_file, msgspec.json.encode(info), durable=False)
            self._start_standing_fleet(info, stack)
            if info.stays:
                self._attend(info, stack)
            self._wait(emulator, info, stack)
            # Nobody is to find a cloud that is ending.
            self._home.info_file.unlink(missing_ok=True)

    def _start_forks(self, info: CloudInfo, stack: contextlib.ExitStack) -> CloudInfo:
        """Start what forks the tasks and functions. First: its imports take seconds."""
        if not available():
            return info
        process, name = start_fork_server({}, self._home.logs / "forks.log")
        stack.callback(end, process)
        return msgspec.structs.replace(info, forks=name)

    def _start_services(
        self, info: CloudInfo, stack: contextlib.ExitStack
    ) -> subprocess.Popen[bytes]:
        """Start the emulators and what works on them; the stack ends them in reverse order."""
        calls = CallLog(self._home.calls_file)
        folder, role = self._home.root / "sagemaker", self._deployment.pipeline_role
        sagemaker = SageMaker(folder, info.sagemaker_port, role, calls)
        emulator = start_emulator(self._home, info)
        # MLflow makes its database on first use, which several processes at once cannot do.
        warm = threading.Thread(target=self._create_mlflow_store, args=(info,), daemon=True)
        warm.start()
        stack.callback(sagemaker.stop)
        stack.callback(end, emulator)
        await_emulator(emulator, self._home, info)
        self._deploy()
        sagemaker.start(client)
        filters = MetricFilters(client("logs"), client("cloudwatch"))
        filters.load()
        _serve_in_thread(filters, "metric-filters", stack)
        clients = {name: client(name) for name in ("ecs", "events", "sts", "logs")}
        environment = self._home.environment(info)
        agent = EcsAgent(
            self._deployment.cluster, clients, environment, self._home.logs, info.forks
        )
        _serve_in_thread(agent, "ecs-agent", stack)
        warm.join()
        return emulator

    def _create_mlflow_store(self, info: CloudInfo) -> None:
        create_store({**os.environ}, info.forks, self._home.mlflow_file).wait()

    def _deploy(self) -> None:
        try:
            deploy(self._deployment, client("cloudformation"), client("s3"), self._home.mlflow_uri)
        except DeployError as error:
            raise LocalCloudError(
                f"The state in {self._home.root} cannot be used; was it made by an older version? "
                f"Move it away, or set MLEDGEOPS_HOME. ({error})"
            ) from error

    def _start_standing_fleet(self, info: CloudInfo, stack: contextlib.ExitStack) -> None:
        """Devices that run as long as the cloud does, for schedules."""
        if self._standing is None:
            return
        clients = FleetClients(iot=client("iot"), kms=client("kms"), dynamodb=client("dynamodb"))
        cloud, wanted = LocalCloud(self._home, info, None), self._standing
        stack.enter_context(running_fleet(cloud, clients, wanted.fleet, wanted.devices, wanted.app))

    def _attend(self, info: CloudInfo, stack: contextlib.ExitStack) -> None:
        """Serve those who are away."""
        attendant = Attendant(
            LocalCloud(self._home, info, None),
            client,
            idle_seconds=self._idle_seconds,
            on_idle=self.stop,
        )
        _serve_in_thread(attendant, "attendant", stack)

    def _stay(self, info: CloudInfo, stack: contextlib.ExitStack) -> None:
        """Outlive the starter from now on, until idle."""
        self._stays.set()
        self._home.stay_file.unlink(missing_ok=True)
        self._idle_seconds = self._idle_seconds or idle_seconds()
        info = msgspec.structs.replace(info, stays=True)
        self._attend(info, stack)
        write_atomically(self._home.info_file, msgspec.json.encode(info), durable=False)

    def _wait(
        self, emulator: subprocess.Popen[bytes], info: CloudInfo, stack: contextlib.ExitStack
    ) -> None:
        while not self._stop.wait(0.2):
            if not self._stays.is_set() and self._home.stay_file.exists():
                self._stay(info, stack)
            if emulator.poll() is not None:
                raise LocalCloudError(
                    f"The emulator ended with code {emulator.returncode}: "
                    f"see {emulator_log(self._home)}."
                )


def _serve_in_thread(
    service: EcsAgent | MetricFilters | Attendant, name: str, stack: contextlib.ExitStack
) -> None:
    """Run a service's ``serve`` in a thread, until the stack stops and joins it."""
    thread = threading.Thread(target=service.serve, name=name)
    thread.start()
    stack.callback(thread.join)
    stack.callback(service.stop)


def _follow_leash(daemon: Daemon) -> None:
    """Wait until standard input ends: the process at its other end has gone."""
    while os.read(0, 4096):
        pass
    daemon.starter_has_gone()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--gateway-port", type=int, default=0)
    parser.add_argument("--leash", action="store_true")
    parser.add_argument("--idle-seconds", type=float, default=0.0)
    parser.add_argument("--app", type=Path)
    parser.add_argument("--devices", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    """Exit 0 after a stop, 2 when the cloud cannot start."""
    options = _arguments()
    logs.set_up()
    standing = None
    if options.app:
        standing = plan(load_app(options.app), RunOptions(devices=options.devices))
    home = Home(options.home)
    daemon = Daemon(
        home,
        options.gateway_port,
        standing,
        stays=not options.leash,
        idle_seconds=options.idle_seconds,
    )
    signal.signal(signal.SIGTERM, daemon.stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if options.leash:
        threading.Thread(target=_follow_leash, args=(daemon,), daemon=True).start()
    refusal = f"A local cloud is running in {home.root} already: `mledgeops local status` shows it."
    try:
        with locked(home.cloud_lock, refusal):
            daemon.serve()
    except LocalCloudError as error:
        home.failure_file.write_text(str(error))
        print(error, file=sys.stderr)  # noqa: T201  # for the log that our starter names
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
