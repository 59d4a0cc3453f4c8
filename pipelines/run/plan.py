"""From an app and options to a run as the pipeline is started with it: everything resolved."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import ConfigValue
from edge.protocol.names import check_name
from edge.training.app_bundle import ROUNDS_KEY, FlowerApp
from pipelines.errors import UsageError
from pipelines.run.names import package_group
from pipelines.run.option import PARAMETER_LIMIT, ParameterValue, encode
from pipelines.run.option_table import APP_PARAMETERS, TABLE, RunOptions

DEFAULT_ROUNDS = 3
FLEET_LIMIT = 40
"""Characters of a fleet's name that is taken from the app's."""


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run as it will be asked for."""

    app: FlowerApp
    app_digest: str
    options: RunOptions
    devices: int
    rounds: int
    """0: the app's ServerApp decides alone."""
    fleet: str

    def parameters(self) -> dict[str, ParameterValue]:
        """The pipeline's parameters; raises UsageError when one would be too long for SageMaker."""
        resolved: dict[str, Any] = {
            "app": self.app_digest,
            "app_name": self.app.name,
            "fleet": self.fleet,
            "num_rounds": self.rounds,
            "min_devices": self.devices,
            "max_devices": self.devices,
            "strategy_params": self.options.strategy_params(),
            "run_config": {**self.options.run_config(), **self._rounds_setting()},
        }
        values = {p.name: encode(resolved[p.argument]) for p in APP_PARAMETERS}
        for entry in TABLE:
            own = getattr(self.options, entry.name)
            for p in entry.parameters:
                value = encode(resolved.get(p.argument, own))
                values[p.name] = str(value) if isinstance(p.default, str) else value
        for name, value in values.items():
            if len(str(value)) > PARAMETER_LIMIT:
                raise UsageError(
                    f"The settings for {name} take {len(str(value))} characters; "
                    f"SageMaker allows {PARAMETER_LIMIT}."
                )
        return values

    def _rounds_setting(self) -> dict[str, ConfigValue]:
        return {self.app.rounds_key: self.rounds} if self.rounds else {}


def plan(app: FlowerApp, options: RunOptions) -> RunPlan:
    """Fill in what the app says; raises UsageError or AppError."""
    unknown = [
        key for key in options.run_config() if key not in app.config and key != app.rounds_key
    ]
    if unknown:
        raise _unknown_setting(app, unknown[0])
    fleet = options.fleet or package_group(app.name).lower()[:FLEET_LIMIT]
    try:
        check_name("fleet", fleet)
    except ProtocolError as error:
        raise UsageError(str(error)) from error
    devices, rounds = options.devices or app.devices, _rounds(app, options)
    if options.quorum > devices:
        raise UsageError(
            f"--quorum is {options.quorum}, and the run has {devices} devices: "
            "no round could reach it."
        )
    return RunPlan(
        app=app,
        app_digest=app.digest(),
        options=options,
        devices=devices,
        rounds=rounds,
        fleet=fleet,
    )


def _unknown_setting(app: FlowerApp, key: str) -> UsageError:
    known = ", ".join(sorted(app.config)) or "none"
    near = difflib.get_close_matches(key, app.config, 1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    if key.endswith("num-supernodes"):
        meant = (
            " It is a setting of Flower's simulation: --devices says how many devices take part."
        )
    return UsageError(f"The app has no setting {key!r}; it has {known}.{meant}")


def _rounds(app: FlowerApp, options: RunOptions) -> int:
    """What the app's setting for its rounds is to be; 0: it has none. Raises UsageError."""
    key = app.rounds_key
    if not key and options.rounds:
        raise UsageError(
            f"--rounds sets the app's setting {ROUNDS_KEY}, which {app.name} does not have: its "
            "ServerApp decides how many rounds there are. Add the setting under "
            "[tool.flwr.app.config] and pass it to start(), or name another one as rounds-key "
            "under [tool.mledgeops]."
        )
    if not key:
        return 0
    configured = options.run_config().get(key, app.config.get(key, DEFAULT_ROUNDS))
    rounds = options.rounds or configured
    if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 1:
        raise UsageError(f"{key} is {rounds!r}; it must be a whole number of at least 1.")
    return rounds


def parse_settings(texts: Iterable[str], option: str = "--set") -> dict[str, ConfigValue]:
    """``key=value`` texts, the value as in TOML, else as a string; raises UsageError."""
    settings: dict[str, ConfigValue] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{option} {text!r} is not of the form key=value.")
        settings[key.strip()] = _toml_value(value.strip())
    return settings


def _toml_value(text: str) -> ConfigValue:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str) else text
