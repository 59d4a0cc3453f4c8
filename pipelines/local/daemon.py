"""The process that is the local cloud: owns the emulators, the ECS agent and SageMaker, until told
to end.

It ends on SIGTERM, or when its standard input does: then whoever started it has gone.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from edge import logs
from edge.training.app_bundle import load_app
from pipelines.deployment import Deployment
from pipelines.errors import DeployError
from pipelines.local.cloud import LocalCloud
from pipelines.local.emulators.calls import CallLog
from pipelines.local.emulators.ecs_agent import EcsAgent
from pipelines.local.emulators.metric_filters import MetricFilters
from pipelines.local.fleet import running_fleet
from pipelines.local.home import ACCOUNT, REGION, CloudInfo, Home, LocalCloudError, enter, locked
from pipelines.local.processes import end, free_port, port_in_use, spawn
from pipelines.local.sagemaker.service import SageMaker
from pipelines.local.stack import deploy
from pipelines.run.option_table import RunOptions
from pipelines.run.plan import RunPlan, plan

logger = logging.getLogger(__name__)

READY_SECONDS = 60.0


class Daemon:
    """One local cloud in one home."""

    def __init__(self, home: Home, gateway_port: int, standing: RunPlan | None = None) -> None:
        self._home = home
        self._standing = standing
        self._port = gateway_port or free_port()
        self._stop = threading.Event()
        self._emulator: subprocess.Popen[bytes] | None = None

    def stop(self, *_: Any) -> None:
        """Ask :meth:`serve` to return."""
        self._stop.set()

    def serve(self) -> None:
        """Start everything, say so in ``cloud.json``, wait, end everything. Raises LocalCloudError."""
        if port_in_use(self._port):
            raise LocalCloudError(
                f"Port {self._port} is in use: choose another by --gateway-port, or leave it out to get a free one."
            )
        info = CloudInfo(
            pid=os.getpid(),
            gateway_port=self._port,
            mqtt_port=free_port(),
            sagemaker_port=free_port(),
            started_at=time.time(),
        )
        enter(self._home.environment(info))
        deployment = Deployment(account=ACCOUNT, region=REGION)
        agent, filters, reader = None, None, None
        sagemaker = SageMaker(
            self._home.root / "sagemaker",
            info.sagemaker_port,
            deployment.pipeline_role,
            CallLog(self._home.calls_file),
        )
        try:
            self._emulator = self._start_emulator(info)
            warm = threading.Thread(target=_create_mlflow_store, daemon=True)
            warm.start()
            self._await_emulator(info)
            from fl_runtime.run.aws import client

            self._deploy(deployment)
            sagemaker.start(client)
            filters = MetricFilters(client("logs"), client("cloudwatch"))
            filters.load()
            clients = {name: client(name) for name in ("ecs", "stepfunctions", "sts", "logs")}
            agent = EcsAgent(deployment, clients, self._home.environment(info), self._home.logs)
            runner = threading.Thread(target=agent.serve, name="ecs-agent")
            reader = threading.Thread(target=filters.serve, name="metric-filters")
            runner.start()
            reader.start()
            warm.join()
            _write(self._home.info_file, msgspec.json.encode(info))
            with self._devices(info):
                self._wait()
            agent.stop()
            runner.join()
        finally:
            if agent is not None:
                agent.stop()
            if filters is not None:
                filters.stop()
            if reader is not None:
                reader.join()
            if self._emulator is not None:
                end(self._emulator)
            if sagemaker.engine is not None:
                sagemaker.stop()
            self._home.info_file.unlink(missing_ok=True)

    def _deploy(self, deployment: Deployment) -> None:
        from fl_runtime.run.aws import client

        try:
            deploy(deployment, client, self._home.mlflow_uri)
        except DeployError as error:
            raise LocalCloudError(
                f"What is in {self._home.root} cannot be taken over; was it made by an older version? Move it away, or set MLEDGEOPS_HOME. ({error})"
            ) from error

    @contextlib.contextmanager
    def _devices(self, info: CloudInfo) -> Iterator[None]:
        """Devices that stand as long as the cloud does, for schedules."""
        if self._standing is None:
            yield
            return
        from fl_runtime.run.aws import client

        plan = self._standing
        with running_fleet(
            LocalCloud(self._home, info, None), plan.fleet, plan.devices, plan.app, client("iot")
        ):
            yield

    def _wait(self) -> None:
        while not self._stop.wait(0.2):
            if self._emulator is not None and self._emulator.poll() is not None:
                raise LocalCloudError(
                    f"The emulator ended with code {self._emulator.returncode}: see {self._home.logs / 'ministack.log'}."
                )

    def _start_emulator(self, info: CloudInfo) -> subprocess.Popen[bytes]:
        environment = {
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(info.gateway_port),
            "IOT_MTLS_PORT": str(info.mqtt_port),
            "AUTH": "true",
            "MINISTACK_ACCOUNT_ID": ACCOUNT,
            "MINISTACK_REGION": REGION,
            "PERSIST_STATE": "1",
            "STATE_DIR": str(self._home.root / "state"),
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(self._home.root / "s3"),
            "LOG_LEVEL": "INFO",
            "DOCKER_HOST": "unix:///nonexistent",
            "TMPDIR": str(self._home.root / "tmp"),
            "MLEDGEOPS_CALLS": str(self._home.calls_file),
            # Functions inherit what leads to the services that the emulator itself is not.
            **self._home.shared_environment(),
            "AWS_ENDPOINT_URL_SAGEMAKER": f"http://127.0.0.1:{info.sagemaker_port}",
        }
        # functions unpacked by earlier clouds
        shutil.rmtree(self._home.root / "tmp", ignore_errors=True)
        (self._home.root / "tmp").mkdir(parents=True)
        return spawn(
            "pipelines.local.emulators.ministack_main",
            [],
            environment,
            self._home.logs / "ministack.log",
        )

    def _await_emulator(self, info: CloudInfo) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self._emulator is not None and self._emulator.poll() is not None:
                break
            try:
                urllib.request.urlopen(
                    f"http://127.0.0.1:{info.gateway_port}/_ministack/health", timeout=2
                ).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise LocalCloudError(
            f"The emulator did not start: see {self._home.logs / 'ministack.log'}."
        )


def _create_mlflow_store() -> None:
    """Make MLflow's database before several processes would at once."""
    from mlflow import MlflowClient

    MlflowClient().search_experiments(max_results=1)


def _write(file: Path, data: bytes) -> None:
    part = file.with_suffix(".part")
    part.write_bytes(data)
    part.replace(file)


def _follow_leash(daemon: Daemon) -> None:
    """Standard input ends when its other end's owner does."""
    while os.read(0, 4096):
        pass
    daemon.stop()


def main() -> int:
    """Exit 0 after a stop, 2 when the cloud cannot start."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--gateway-port", type=int, default=0)
    parser.add_argument("--leash", action="store_true")
    parser.add_argument("--app", type=Path)
    parser.add_argument("--devices", type=int, default=0)
    options = parser.parse_args()
    logs.set_up()
    standing = (
        plan(load_app(options.app), RunOptions(devices=options.devices)) if options.app else None
    )
    daemon = Daemon(Home(options.home), options.gateway_port, standing)
    signal.signal(signal.SIGTERM, daemon.stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if options.leash:
        threading.Thread(target=_follow_leash, args=(daemon,), daemon=True).start()
    try:
        with locked(
            options.home / "lock",
            f"A local cloud is running in {options.home} already: `mledgeops local status` shows it.",
        ):
            daemon.serve()
    except LocalCloudError as error:
        (options.home / "failure.txt").write_text(str(error))
        print(error, file=sys.stderr)  # noqa: T201  # read by whoever started us
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
