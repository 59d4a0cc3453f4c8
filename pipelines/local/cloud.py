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
from pipelines.local.home import (
    ACCOUNT,
    DAEMON,
    REGION,
    CloudInfo,
    Home,
    LocalCloudError,
    enter,
    is_free,
    locked,
    sharing,
)
from pipelines.local.mlflow_store import check_database
from pipelines.local.processes import end

START_SECONDS = 120.0
STOP_SECONDS = 30.0
IDLE_SECONDS = 1800.0
"""A cloud that outlives its starter ends once nobody has used it for so long."""
IDLE_VARIABLE = "MLEDGEOPS_IDLE_SECONDS"
KEEP_SECONDS = 10.0


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
        cls,
        home: Home,
        *,
        stays: bool = False,
        idle_seconds: float = 0.0,
        gateway_port: int = 0,
        standing: Sequence[str] = (),
    ) -> LocalCloud:
        """Start a cloud and wait until it is ready.

        Args:
            home: Its folder.
            stays: It outlives this process, until :func:`stop_running` or until it has been idle.
            idle_seconds: It ends once nobody has used it for so long; 0: it does not.
            gateway_port: Port of the AWS gateway; 0: a free one.
            standing: The daemon's arguments for devices that run as long as it does.

        Raises:
            LocalCloudError: It could not start, with the reason.

        """
        check_database(home.mlflow_file, free=True)
        arguments = ["--idle-seconds", str(idle_seconds), "--gateway-port", str(gateway_port)]
        process = _start_daemon(home, stays=stays, arguments=[*arguments, *standing])
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

    def keep(self) -> LocalCloud:
        """Let the cloud outlive its starter, and host devices; returns it as it is then.

        Raises:
            LocalCloudError: It is ending at this moment.

        """
        deadline = time.monotonic() + KEEP_SECONDS
        self.home.stay_file.touch()
        while time.monotonic() < deadline:
            info = self.home.info()
            if info is None or info.pid != self.info.pid:
                break
            if info.stays:
                return LocalCloud(self.home, info, None)
            time.sleep(0.05)
        raise LocalCloudError(f"The local cloud in {self.home.root} has just ended: try again.")

    def leave(self) -> None:
        """Leave a cloud that this object started to its other users: it ends once it is idle."""
        if self._process is None:
            return
        self.keep()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

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
    """The cloud that runs in this home, else one for the block; the environment leads to it.

    A cloud that others have come to use meanwhile is left to them.
    """
    check_database(home.mlflow_file)
    with sharing(home.users_lock) as alone:
        with locked(home.start_lock):
            cloud = LocalCloud.attach(home) or _start_after_another(home)
        home.used_file.touch()
        with cloud, cloud.reached():
            yield cloud
            home.used_file.touch()
            if not alone():
                cloud.leave()


def hosted_cloud(home: Home) -> LocalCloud:
    """The cloud that runs in this home, as it is; else a new one. That outlives this process, hosts
    the devices that runs and rollouts want, and ends once it has been idle.

    Raises:
        LocalCloudError: It cannot start.

    """
    with sharing(home.users_lock), locked(home.start_lock):
        home.used_file.touch()
        cloud = LocalCloud.attach(home)
        if cloud is not None:
            return cloud
        check_database(home.mlflow_file)
        return _start_after_another(home, stays=True, idle_seconds=idle_seconds())


def _start_after_another(home: Home, **options: Any) -> LocalCloud:
    """Start a cloud; one that is ending has :data:`STOP_SECONDS` to do so."""
    deadline = time.monotonic() + STOP_SECONDS
    while not is_free(home.cloud_lock) and time.monotonic() < deadline:
        time.sleep(0.05)
    return LocalCloud.start(home, **options)


def idle_seconds() -> float:
    """How long a cloud may be idle before it ends: ``MLEDGEOPS_IDLE_SECONDS``, else half an hour.

    Raises:
        LocalCloudError: The variable is not a number of seconds.

    """
    text = os.environ.get(IDLE_VARIABLE, "")
    try:
        seconds = float(text or IDLE_SECONDS)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise LocalCloudError(
            f"{IDLE_VARIABLE} is {text!r}; it must be a number of seconds above 0."
        )
    return seconds


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


def _start_daemon(home: Home, *, stays: bool, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    home.root.mkdir(parents=True, exist_ok=True)
    home.logs.mkdir(exist_ok=True)
    home.failure_file.unlink(missing_ok=True)
    leash = [] if stays else ["--leash"]
    with (home.logs / "cloud.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", DAEMON, "--home", str(home.root), *leash, *arguments],
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
