"""The local cloud as its users hold it: start or attach, reach it, stop it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

import psutil

from pipelines.deployment import Deployment
from pipelines.devices.provisioning import DeviceEndpoint, trusted_keys
from pipelines.local.home import ACCOUNT, DAEMON, REGION, CloudInfo, Home, LocalCloudError, enter
from pipelines.local.mlflow_store import check_database
from pipelines.local.processes import end

START_SECONDS = 60.0
STOP_SECONDS = 30.0


class LocalCloud:
    """A running local cloud. As a context manager it stops what it started, and only that."""

    def __init__(
        self, home: Home, info: CloudInfo, process: subprocess.Popen[bytes] | None
    ) -> None:
        self.home = home
        self.info = info
        self._process = process

    @classmethod
    def start(
        cls, home: Home, *, stays: bool = False, gateway_port: int = 0, standing: Sequence[str] = ()
    ) -> LocalCloud:
        """Start a cloud and wait until it is ready.

        Args:
            home: Its folder.
            stays: It outlives this process, until :func:`stop_running`.
            gateway_port: Port of the AWS gateway; 0: a free one.
            standing: The daemon's arguments for devices that run as long as it does.

        Raises:
            LocalCloudError: It could not start, with the reason.

        """
        check_database(home.mlflow_file, free=True)
        process = _start_daemon(home, stays=stays, gateway_port=gateway_port, standing=standing)
        try:
            return cls(home, _await_ready(home, process), None if stays else process)
        except BaseException:
            end(process)
            raise

    @classmethod
    def attach(cls, home: Home) -> LocalCloud | None:
        """The cloud that runs in this home, or None."""
        info = home.info()
        return cls(home, info, None) if info is not None else None

    @contextlib.contextmanager
    def reached(self) -> Iterator[None]:
        """Point this process's environment at the cloud while the block lasts."""
        before = dict(os.environ)
        enter(self.environment())
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def environment(self) -> dict[str, str]:
        """Variables that lead boto3, MLflow and our own commands to this cloud."""
        return {**self.home.environment(self.info), **self.deployment.environment()}

    @property
    def deployment(self) -> Deployment:
        """The names of the deployed resources."""
        return Deployment(account=ACCOUNT, region=REGION)

    def endpoint(self, kms: Any) -> DeviceEndpoint:
        """Where devices connect, and the CA and keys that they trust."""
        authority = f"http://127.0.0.1:{self.info.gateway_port}/_ministack/iot/ca.pem"
        with urllib.request.urlopen(authority, timeout=10) as answer:
            return DeviceEndpoint(
                host="127.0.0.1",
                port=self.info.mqtt_port,
                ca=answer.read(),
                trust=trusted_keys(kms, self.deployment),
            )

    def stop(self) -> None:
        """Stop the cloud if this object started it."""
        if self._process is not None:
            end(self._process, 20.0)
            self._process = None

    def __enter__(self) -> LocalCloud:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


@contextlib.contextmanager
def local_cloud(home: Home) -> Iterator[LocalCloud]:
    """The cloud that runs in this home, else one for the block; the environment leads to it."""
    check_database(home.mlflow_file)
    cloud = LocalCloud.attach(home) or LocalCloud.start(home)
    with cloud, cloud.reached():
        yield cloud


def stop_running(home: Home) -> bool:
    """Stop the cloud that runs in this home; False when there is none.

    Raises:
        LocalCloudError: It did not end in time.

    """
    info = home.info()
    if info is None:
        return False
    process = psutil.Process(info.pid)
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except psutil.TimeoutExpired as error:
        raise LocalCloudError(
            f"The local cloud (process {info.pid}) did not end within {STOP_SECONDS:.0f} s."
        ) from error
    return True


def _start_daemon(
    home: Home, *, stays: bool, gateway_port: int, standing: Sequence[str]
) -> subprocess.Popen[bytes]:
    home.root.mkdir(parents=True, exist_ok=True)
    home.logs.mkdir(exist_ok=True)
    home.failure_file.unlink(missing_ok=True)
    arguments = ["--home", str(home.root), "--gateway-port", str(gateway_port)]
    leash = [] if stays else ["--leash"]
    with (home.logs / "cloud.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", DAEMON, *arguments, *leash, *standing],
            start_new_session=True,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL if stays else subprocess.PIPE,
        )


def _await_ready(home: Home, process: subprocess.Popen[bytes]) -> CloudInfo:
    log = home.logs / "cloud.log"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        info = home.info()
        if info is not None and info.pid == process.pid:
            return info
        if process.poll() is not None:
            if home.failure_file.is_file():
                raise LocalCloudError(home.failure_file.read_text())
            raise LocalCloudError(f"The local cloud did not start: see {log}.")
        time.sleep(0.05)
    raise LocalCloudError(f"The local cloud was not ready within {START_SECONDS:.0f} s: see {log}.")
