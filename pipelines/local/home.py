"""The folder in which a local cloud keeps everything: state, logs, devices, MLflow."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

ACCOUNT = "000000000000"
REGION = "us-east-1"


class LocalCloudError(Exception):
    """The local cloud cannot do what was asked, with the reason in one sentence."""


class CloudInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A running local cloud, as ``cloud.json`` describes it."""

    pid: int
    gateway_port: int
    mqtt_port: int
    sagemaker_port: int
    started_at: float


FOREIGN_VARIABLES = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_CA_BUNDLE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
"""Variables of the user's own AWS configuration that must not reach the local cloud."""


def enter(environment: dict[str, str]) -> None:
    """Turn this process's environment to a local cloud."""
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
        return cls(Path(os.environ.get("MLEDGEOPS_HOME", ".mledgeops")).resolve())

    @property
    def info_file(self) -> Path:
        """Describes the running cloud."""
        return self.root / "cloud.json"

    @property
    def logs(self) -> Path:
        """One file a process."""
        return self.root / "logs"

    @property
    def calls_file(self) -> Path:
        """Every call of a role or device that the emulators decided on, once each."""
        return self.root / "calls.jsonl"

    @property
    def devices(self) -> Path:
        """One folder a device."""
        return self.root / "devices"

    @property
    def mlflow_uri(self) -> str:
        """MLflow's store: a file, no server needed. ``mlflow ui --backend-store-uri`` shows it."""
        return f"sqlite:///{self.root / 'mlflow.db'}"

    def info(self) -> CloudInfo | None:
        """The running cloud, or None; a file left by a cloud that died counts as none."""
        try:
            info = msgspec.json.decode(self.info_file.read_bytes(), type=CloudInfo)
            os.kill(info.pid, 0)
        except (OSError, msgspec.DecodeError):
            return None
        return info

    def environment(self, info: CloudInfo) -> dict[str, str]:
        """What a process needs to reach this cloud, and nothing of the user's own AWS
        configuration.
        """
        gateway = f"http://127.0.0.1:{info.gateway_port}"
        return {
            "AWS_ENDPOINT_URL": gateway,
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
        """The part that functions and tasks get too."""
        return {
            "MLFLOW_TRACKING_URI": self.mlflow_uri,
            "MLEDGEOPS_ARTIFACT_ROOT": (self.root / "mlartifacts").as_uri(),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "DO_NOT_TRACK": "true",
            "FLWR_TELEMETRY_ENABLED": "0",
        }


@contextmanager
def locked(file: Path, refusal: str) -> Iterator[None]:
    """Hold a lock that the system frees when this process ends; raises LocalCloudError when it is
    taken.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LocalCloudError(refusal) from error
        yield
