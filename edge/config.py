"""A device's configuration file, which the operator's enrolment writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Protocol, TypeVar

import msgspec

from edge.errors import MLEdgeOpsError
from edge.protocol.messages import ConfigValue, Label
from edge.protocol.names import Name
from edge.typed import convert, from_json

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
HeartbeatSeconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]


class ConfigError(MLEdgeOpsError, ValueError):
    """A file of the device's configuration that cannot be used."""

    code = "config"


class DeviceConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Who this device is, how it connects, and where it stores its files."""

    fleet: Name
    device: Name
    transport: Literal["mqtt", "greengrass"] = "mqtt"
    """``greengrass`` uses the nucleus's connection, and none of the next five fields."""
    endpoint: str = ""
    """Host of the AWS IoT data endpoint (``iot:Data-ATS``)."""
    port: Port = 8883
    certificate: str = ""
    """Path of a PEM file, as the next two."""
    private_key: str = ""
    """The private key never leaves the device."""
    ca: str = ""
    home: str
    """Folder for apps, cache and models."""
    heartbeat_seconds: HeartbeatSeconds = 30.0
    node_config: dict[str, ConfigValue] = {}
    """What the app finds in ``context.node_config``."""
    labels: Annotated[dict[Label, Label], msgspec.Meta(max_length=10)] = {}
    """Sent in heartbeats, for ``run --require`` and ``--selection stratified:LABEL``."""
    provisioning_template: str = ""
    """Fleet provisioning template that renews the certificate; empty: no renewal."""
    rotate_days: Annotated[float, msgspec.Meta(gt=0)] = 90.0
    """Age in days at which the certificate is renewed."""
    worker_env: dict[str, str] = {}
    """Environment of the training process, such as OMP_NUM_THREADS."""

    @property
    def apps_dir(self) -> Path:
        """Installed apps, one folder each, named by digest."""
        return Path(self.home) / "apps"

    @property
    def cache_dir(self) -> Path:
        """Downloaded weights, one file each, named by digest."""
        return Path(self.home) / "cache"

    @property
    def trust_file(self) -> Path:
        """Public keys whose signatures on commands and models this device trusts."""
        return Path(self.home) / "trust.json"

    @property
    def orders_file(self) -> Path:
        """The orders that this device has begun, so that none is carried out twice."""
        return Path(self.home) / "orders.json"

    @property
    def state_dir(self) -> Path:
        """What apps keep in ``context.state``, one file for each run and app."""
        return Path(self.home) / "state"

    @property
    def spool_dir(self) -> Path:
        """Replies, kept until the broker has acknowledged them."""
        return Path(self.home) / "spool"

    @property
    def serving_dir(self) -> Path:
        """Counts and summary statistics of predictions."""
        return Path(self.home) / "serving"

    @property
    def models_dir(self) -> Path:
        """Models for prediction; ``active.json`` names the one in use."""
        return Path(self.home) / "models"


class _Files(Protocol):
    """A configuration that names a certificate, its key and a CA."""

    endpoint: str
    certificate: str
    private_key: str
    ca: str


_Described = TypeVar("_Described", bound=_Files)


def load_config(
    file: Path, prepare: Callable[[DeviceConfig], None] = lambda _: None
) -> DeviceConfig:
    """Read and check a device's configuration file. Raises ConfigError.

    Args:
        file: The JSON file.
        prepare: Called before it is checked that the files exist which the configuration names.

    """
    return read_struct(file, DeviceConfig, "device configuration", prepare)


def component_config(
    thing: str, fleet: str, home: str, heartbeat_seconds: float, node_config: str = "{}"
) -> DeviceConfig:
    """Build the configuration of a Greengrass component. Raises ConfigError.

    Args:
        thing: The value of ``AWS_IOT_THING_NAME``, which the nucleus sets: the device's name
            (https://docs.aws.amazon.com/greengrass/v2/developerguide/component-environment-variables.html).
        fleet: The device's fleet.
        home: Folder for apps, cache and models.
        heartbeat_seconds: Seconds between heartbeats.
        node_config: A JSON object, which the app finds in ``context.node_config``.

    """
    fields = {
        "fleet": fleet,
        "device": thing,
        "home": home,
        "heartbeat_seconds": heartbeat_seconds,
        "transport": "greengrass",
    }
    if not thing:
        raise ConfigError(
            "AWS_IOT_THING_NAME is not set: --greengrass is for components, which the nucleus"
            " starts and names."
        )
    try:
        return convert({**fields, "node_config": msgspec.json.decode(node_config)}, DeviceConfig)
    except ValueError as error:
        raise ConfigError(f"The component's configuration is malformed: {error}.") from error


def read_struct(
    file: Path,
    kind: type[_Described],
    meaning: str,
    prepare: Callable[[_Described], None] = lambda _: None,
) -> _Described:
    """Read a JSON file that names a certificate, its key and a CA.

    Args:
        file: The JSON file.
        kind: The struct to read it as.
        meaning: What the file is, for error messages.
        prepare: Called before the named files are looked for.

    Raises:
        ConfigError: The file is malformed, or a file that it names does not exist.

    """
    try:
        config = from_json(file.read_bytes(), type=kind)
    except OSError as error:
        raise ConfigError(f"The {meaning} {file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"The {meaning} {file} is malformed: {error}.") from error
    if getattr(config, "transport", "mqtt") == "greengrass":
        return config
    for name in ("endpoint", "certificate", "private_key", "ca"):
        if not getattr(config, name):
            raise ConfigError(
                f"The {meaning} {file} has no {name}, which a device with its own connection needs."
            )
    prepare(config)
    for path in (config.certificate, config.private_key, config.ca):
        if not Path(path).is_file():
            raise ConfigError(f"{file} names {path}, which does not exist.")
    return config
