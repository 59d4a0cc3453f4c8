"""A device's configuration file, as the operator's enrolment writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import msgspec

from edge.protocol.messages import Name


class ConfigError(ValueError):
    """A device configuration that cannot be used, with the reason in one sentence."""


class _Files(Protocol):
    certificate: str
    private_key: str
    ca: str


class DeviceConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Who this device is, how it connects, and where it keeps its things."""

    fleet: Name
    device: Name
    endpoint: str
    """Host of the AWS IoT data endpoint (``iot:Data-ATS``)."""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8883
    certificate: str
    """Paths of PEM files; the private key never leaves the device."""
    private_key: str
    ca: str
    home: str
    """Folder for apps, cache and models."""
    heartbeat_seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 30.0
    node_config: dict[str, bool | int | float | str] = {}
    """What the app finds in ``context.node_config``."""
    provisioning_template: str = ""
    """The fleet provisioning template by which the certificate is renewed; empty: it is not."""
    rotate_days: Annotated[float, msgspec.Meta(gt=0)] = 90.0
    """A certificate older than this is renewed."""
    worker_env: dict[str, str] = {}
    """Environment of the training process, such as OMP_NUM_THREADS."""

    @property
    def apps_dir(self) -> Path:
        """Installed apps, one folder named by digest each."""
        return Path(self.home) / "apps"

    @property
    def cache_dir(self) -> Path:
        """Downloaded weights, one file named by digest each."""
        return Path(self.home) / "cache"

    @property
    def models_dir(self) -> Path:
        """Models for inference; ``active.json`` names the one in use."""
        return Path(self.home) / "models"


def load_config(file: Path) -> DeviceConfig:
    """Read and check a configuration file; raises ConfigError."""
    return read_struct(file, DeviceConfig, "device configuration")


Described = TypeVar("Described", bound=_Files)


def read_struct(file: Path, kind: type[Described], meaning: str) -> Described:
    """Read a JSON file that names a certificate, its key and a CA; raises ConfigError in one sentence."""
    try:
        config = msgspec.json.decode(file.read_bytes(), type=kind)
    except OSError as error:
        raise ConfigError(f"The {meaning} {file} cannot be read: {error.strerror}.") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"The {meaning} {file} is malformed: {error}.") from error
    for path in (config.certificate, config.private_key, config.ca):
        if not Path(path).is_file():
            raise ConfigError(f"{file} names {path}, which is not there.")
    return config
