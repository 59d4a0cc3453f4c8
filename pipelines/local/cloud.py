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

import psutil

from pipelines.deployment import Deployment
from pipelines.devices.provisioning import Endpoint, trusted_keys
from pipelines.local.home import ACCOUNT, REGION, CloudInfo, Home, LocalCloudError, enter
from pipelines.local.processes import end

START_SECONDS = 60.0
STOP_SECONDS = 30.0


class LocalCloud:
    """A running local cloud. As a context manager it ends what it started, and only that."""

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
        """Start a cloud and wait until it is ready; raises LocalCloudError with the reason when it
        is not.

        ``stays``: it outlives this process, until :meth:`stop_running`. ``standing``: the daemon's
        arguments for devices that run as long as it does.
        """
        home.root.mkdir(parents=True, exist_ok=True)
        home.logs.mkdir(exist_ok=True)
        (home.root / "failure.txt").unlink(missing_ok=True)
        arguments = [
            "--home",
            str(home.root),
            "--gateway-port",
            str(gateway_port),
            *([] if stays else ["--leash"]),
            *standing,
        ]
        with (home.logs / "cloud.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.local.daemon", *arguments],
                start_new_session=True,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL if stays else subprocess.PIPE,
            )
        try:
            return cls(home, _await_ready(home, process), None if stays else process)
        except BaseException:
            end(process)
            raise

    @classmethod
    def attach(cls, home: Home) -> LocalCloud | None:
        """The cloud that runs in this home, if one does."""
        info = home.info()
        return cls(home, info, None) if info is not None else None

    @classmethod
    @contextlib.contextmanager
    def use(cls, home: Home) -> Iterator[LocalCloud]:
        """The cloud that runs, or one for the time of the block; the environment points to it."""
        cloud = cls.attach(home) or cls.start(home)
        with cloud, cloud.reached():
            yield cloud

    @contextlib.contextmanager
    def reached(self) -> Iterator[None]:
        """This process's environment leads to the cloud while it lasts."""
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
        """The names of what is deployed here."""
        return Deployment(account=ACCOUNT, region=REGION)

    def endpoint(self) -> Endpoint:
        """Where devices connect."""
        from fl_runtime.run.aws import client

        with (
            urllib.request.urlopen(
                f"http://127.0.0.1:{self.info.gateway_port}/_ministack/iot/ca.pem", timeout=10
            ) as answer,
            self.reached(),
        ):
            trust = trusted_keys(client("kms"), self.deployment)
            return Endpoint(
                host="127.0.0.1", port=self.info.mqtt_port, ca=answer.read(), trust=trust
            )

    def stop(self) -> None:
        """End a cloud that this object started."""
        if self._process is not None:
            end(self._process, 20.0)
            self._process = None

    @staticmethod
    def stop_running(home: Home) -> bool:
        """End the cloud that stays in this home; False when there is none."""
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

    def __enter__(self) -> LocalCloud:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _await_ready(home: Home, process: subprocess.Popen[bytes]) -> CloudInfo:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        info = home.info()
        if info is not None and info.pid == process.pid:
            return info
        if process.poll() is not None:
            failure = home.root / "failure.txt"
            raise LocalCloudError(
                failure.read_text()
                if failure.is_file()
                else f"The local cloud did not start: see {home.logs / 'cloud.log'}."
            )
        time.sleep(0.05)
    raise LocalCloudError(
        f"The local cloud was not ready within {START_SECONDS:.0f} s: see {home.logs / 'cloud.log'}."
    )
