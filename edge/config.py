"""A device's configuration file, as the operator's enrolment writes it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Protocol, TypeVar

import msgspec

from edge.protocol.messages import Label, Name


class ConfigError(ValueError):
    """A device configuration that cannot be used, with the reason in one sentence."""


class _Files(Protocol):
    endpoint: str
    certificate: str
    private_key: str
    ca: str


class DeviceConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Who this device is, how it connects, and where it keeps its things."""

    fleet: Name
    device: Name
    transport: Literal["mqtt", "greengrass"] = "mqtt"
    """Own connection, or the Greengrass nucleus's, which needs none of the next five."""
    endpoint: str = ""
    """Host of the AWS IoT data endpoint (``iot:Data-ATS``)."""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8883
    certificate: str = ""
    """Paths of PEM files; the private key never leaves the device."""
    private_key: str = ""
    ca: str = ""
    home: str
    """Folder for apps, cache and models."""
    heartbeat_seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 30.0
    node_config: dict[str, bool | int | float | str] = {}
    """What the app finds in ``context.node_config``."""
    labels: Annotated[dict[Label, Label], msgspec.Meta(max_length=10)] = {}
    """Told in heartbeats, for ``run --require`` and ``--selection stratified:LABEL``."""
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
    def trust_file(self) -> Path:
        """Public keys of those whose commands and models this device believes."""
        return Path(self.home) / "trust.json"

    @property
    def spool_dir(self) -> Path:
        """Replies, kept until the broker has them."""
        return Path(self.home) / "spool"

    @property
    def serving_dir(self) -> Path:
        """What was predicted, in counts and summary statistics."""
        return Path(self.home) / "serving"

    @property
    def models_dir(self) -> Path:
        """Models for inference; ``active.json`` names the one in use."""
        return Path(self.home) / "models"


def load_config(file: Path) -> DeviceConfig:
    """Read and check a configuration file; raises ConfigError."""
    return read_struct(file, DeviceConfig, "device configuration")


def of_component(
    fleet: str, home: str, heartbeat_seconds: float, node_config: str = "{}"
) -> DeviceConfig:
    """The configuration of a Greengrass component: the nucleus says which thing this is. Raises
    ConfigError.
    """
    fields = {
        "fleet": fleet,
        "device": os.environ.get("AWS_IOT_THING_NAME", ""),
        "home": home,
        "heartbeat_seconds": heartbeat_seconds,
        "transport": "greengrass",
    }
    if not fields["device"]:
        raise ConfigError(
            "AWS_IOT_THING_NAME is not set: --greengrass is for components, which the nucleus starts and names."
        )
    try:
        return msgspec.convert(
            {**fields, "node_config": msgspec.json.decode(node_config)}, DeviceConfig
        )
    except msgspec.DecodeError as error:
        raise ConfigError(f"The component's configuration is malformed: {error}.") from error


Described = TypeVar("Described", bound=_Files)


def read_struct(file: Path, kind: type[Described], meaning: str) -> Described:
    """Read a JSON file that names a certificate, its key and a CA; raises ConfigError in one
    sentence.
    """
    try:
        config = msgspec.json.decode(file.read_bytes(), type=kind)
    except OSError as error:
        raise ConfigError(f"The {meaning} {file} cannot be read: {error.strerror}.") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"The {meaning} {file} is malformed: {error}.") from error
    if getattr(config, "transport", "mqtt") == "greengrass":
        return config
    missing = [
        name
        for name in ("endpoint", "certificate", "private_key", "ca")
        if not getattr(config, name)
    ]
    if missing:
        raise ConfigError(
            f"The {meaning} {file} does not say its {missing[0]}, which a device with a connection of its own needs."
        )
    for path in (config.certificate, config.private_key, config.ca):
        if not Path(path).is_file():
            raise ConfigError(f"{file} names {path}, which is not there.")
    return config
