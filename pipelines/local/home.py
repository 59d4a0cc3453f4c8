"""The folder in which a local cloud keeps everything: state, logs, devices, MLflow."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge.errors import MLEdgeOpsError
from edge.typed import from_json
from pipelines.local.processes import identity, is_module

ACCOUNT = "000000000000"
REGION = "us-east-1"
VARIABLE = "MLEDGEOPS_HOME"
DAEMON = "pipelines.local.daemon"
"""The module that the local cloud's process runs."""

FOREIGN_VARIABLES = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_CA_BUNDLE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
"""Variables of the user's own AWS configuration that must not reach the local cloud."""


class LocalCloudError(MLEdgeOpsError):
    """The local cloud cannot do what was asked."""

    code = "local-cloud-error"


class CloudInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A running local cloud, as ``cloud.json`` describes it."""

    pid: int
    """Process id of the daemon."""
    gateway_port: int
    mqtt_port: int
    sagemaker_port: int
    started_at: float
    """Seconds since the epoch."""
    forks: str = ""
    """Socket of :mod:`pipelines.local.forks`; empty where processes are not forked."""
    process: str = ""
    """Which of the processes that ever had this id: see :func:`~processes.identity`. Empty in files
    of version 0.4.
    """
    stays: bool = False
    """It outlives its starter, and brings up the devices that runs and rollouts want."""


def enter(environment: dict[str, str]) -> None:
    """Point this process's environment at a local cloud."""
    for name in FOREIGN_VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(environment)


@dataclass(frozen=True)
class Home:
    """Paths below one folder, ``MLEDGEOPS_HOME`` or ``.mledgeops`` in the current folder."""

    root: Path

    @classmethod
    def default(cls) -> Home:
        """The user's home for local clouds."""
        return cls(Path(os.environ.get(VARIABLE, ".mledgeops")).resolve())

    @property
    def info_file(self) -> Path:
        """Describes the running cloud (:class:`CloudInfo` as JSON)."""
        return self.root / "cloud.json"

    @property
    def failure_file(self) -> Path:
        """Why the last cloud did not start, in one sentence."""
        return self.root / "failure.txt"

    @property
    def stay_file(self) -> Path:
        """Asks a cloud to outlive its starter (:meth:`~pipelines.local.cloud.LocalCloud.keep`)."""
        return self.root / "stay"

    @property
    def used_file(self) -> Path:
        """Changed whenever somebody uses the cloud: see :mod:`pipelines.local.hosting.idle`."""
        return self.root / "used"

    @property
    def queue(self) -> Path:
        """Runs that wait for their fleet, one file each."""
        return self.root / "queue"

    @property
    def wanted(self) -> Path:
        """Fleets that somebody has asked for, one file each."""
        return self.root / "wanted"

    @property
    def users_lock(self) -> Path:
        """Shared by all processes that work on the cloud at the moment."""
        return self.root / "users.lock"

    @property
    def cloud_lock(self) -> Path:
        """Held by the cloud's process."""
        return self.root / "lock"

    @property
    def start_lock(self) -> Path:
        """Held while somebody looks for the cloud and starts one."""
        return self.root / "start.lock"

    def fleet_turn(self, fleet: str) -> Path:
        """Held by a process that starts a run on a fleet."""
        return self.root / "turns" / fleet

    @property
    def logs(self) -> Path:
        """Log files, one for each process."""
        return self.root / "logs"

    @property
    def calls_file(self) -> Path:
        """Authorisation decisions of the emulators (:mod:`pipelines.local.emulators.calls`)."""
        return self.root / "calls.jsonl"

    @property
    def executions(self) -> Path:
        """Pipeline executions, one file each."""
        return self.root / "sagemaker" / "executions"

    @property
    def devices(self) -> Path:
        """Homes of the local devices, as FLEET/DEVICE."""
        return self.root / "devices"

    @property
    def mlflow_file(self) -> Path:
        """MLflow's store, a SQLite file."""
        return self.root / "mlflow.db"

    @property
    def mlflow_uri(self) -> str:
        """How MLflow is told of it; ``mlflow ui --backend-store-uri`` shows it."""
        return f"sqlite:///{self.mlflow_file}"

    def info(self) -> CloudInfo | None:
        """The running cloud, or None. A file left behind by a cloud that died counts as none."""
        try:
            info = from_json(self.info_file.read_bytes(), type=CloudInfo)
        except (OSError, msgspec.DecodeError):
            return None
        # The system gives the id of a dead process to another one, which is not ours to end.
        running = identity(info.pid) if info.process else is_module(info.pid, DAEMON)
        return info if running and info.process in ("", running) else None

    def environment(self, info: CloudInfo) -> dict[str, str]:
        """Variables that a process needs to reach this cloud and no other."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{info.gateway_port}",
            "AWS_ENDPOINT_URL_SAGEMAKER": f"http://127.0.0.1:{info.sagemaker_port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            **self.shared_environment(),
        }

    def shared_environment(self) -> dict[str, str]:
        """The part of :meth:`environment` that Lambda functions and tasks get as well."""
        return {
            "MLFLOW_TRACKING_URI": self.mlflow_uri,
            "MLEDGEOPS_ARTIFACT_ROOT": (self.root / "mlartifacts").as_uri(),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "DO_NOT_TRACK": "true",
            "FLWR_TELEMETRY_ENABLED": "0",
            **_past_proxies(),
        }


def _past_proxies() -> dict[str, str]:
    """Loopback is reached directly, also where a company's proxy leads to the internet: boto3 and
    gRPC would ask the proxy for 127.0.0.1.
    """
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    names = dict.fromkeys([*filter(None, given.split(",")), "127.0.0.1", "localhost"])
    value = ",".join(name.strip() for name in names)
    return {"NO_PROXY": value, "no_proxy": value}


@contextmanager
def locked(file: Path, refusal: str = "") -> Iterator[None]:
    """Hold a lock that the system frees when this process ends. An empty ``refusal``: wait for it.

    Raises:
        LocalCloudError: Another process holds it; the message is ``refusal``.

    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
        except OSError as error:
            raise LocalCloudError(refusal) from error
        yield


@contextmanager
def sharing(file: Path) -> Iterator[Callable[[], bool]]:
    """Hold a lock together with others, and wait for whoever holds it alone.

    Yields a function that says whether nobody else holds it; if so, it is held alone from then on.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)

        def alone() -> bool:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                # To change a lock the system gives it up first: https://man7.org/linux/man-pages/man2/flock.2.html
                fcntl.flock(handle, fcntl.LOCK_SH)
                return False
            return True

        yield alone


def is_free(file: Path) -> bool:
    """Whether nobody holds a lock."""
    try:
        with locked(file, "held"):
            return True
    except LocalCloudError:
        return False
