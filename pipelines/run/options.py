"""What a user asks of a run, checked before anything starts."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import ConfigValue
from edge.protocol.names import check_name
from edge.training.app_bundle import FlowerApp
from fl_runtime.run.eligibility import check_requirements
from fl_runtime.run.errors import RunFailed
from pipelines.errors import UsageError
from pipelines.run.pipeline import BAR, package_group

PARAMETER_LIMIT = 1024
"""Characters of a SageMaker pipeline parameter."""
STRATEGY_PREFIX = "strategy."
ROUNDS_KEY = "num-server-rounds"
DEFAULT_ROUNDS = 3
SELECTIONS = re.compile(r"random|least-seen|stratified:[A-Za-z0-9_-]{1,40}")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of ``mledgeops run``. Times in seconds; 0 or empty: the default."""

    devices: int = 0
    rounds: int = 0
    devices_per_proxy: int = 100
    strategy: str = ""
    settings: dict[str, ConfigValue] = field(default_factory=dict)
    """``--set``: the app's run configuration, and with the prefix ``strategy.`` the strategy's
    parameters.
    """
    metric: str = ""
    goal: str = ""
    minimum_score: float = float(BAR.default)
    fleet: str = ""
    seed: int = 0
    phase_seconds: float = 600.0
    deadline_seconds: float = 300.0
    quorum: int = 1
    quorum_fraction: float = 0.0
    over_selection: float = 1.3
    selection: str = ""
    require: dict[str, ConfigValue] = field(default_factory=dict)
    target: float | None = None
    max_seconds: float = 0.0
    max_cost: float = 0.0
    resume_from: str = ""
    experiment: str = "mledgeops"

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range."""
        for name, value, least in (
            ("--devices", self.devices, 1),
            ("--rounds", self.rounds, 1),
            ("--devices-per-proxy", self.devices_per_proxy, 0),
        ):
            if value < 0:
                raise UsageError(
                    f"{name} is {value}; it must be a whole number of at least {least}."
                )
        for name, seconds in (
            ("--phase-seconds", self.phase_seconds),
            ("--deadline-seconds", self.deadline_seconds),
        ):
            if not seconds > 0 or math.isinf(seconds):
                raise UsageError(f"{name} is {seconds}; it must be a number above 0.")
        self._check_rounds()
        if self.goal not in ("", "minimize", "maximize"):
            raise UsageError(f"--goal is {self.goal!r}; it must be minimize or maximize.")

    def _check_rounds(self) -> None:
        for name, value, least, most in (
            ("--quorum", self.quorum, 1, math.inf),
            ("--quorum-fraction", self.quorum_fraction, 0, 1),
            ("--over-selection", self.over_selection, 1, 10),
            ("--max-seconds", self.max_seconds, 0, math.inf),
            ("--max-cost", self.max_cost, 0, math.inf),
        ):
            if not least <= value <= most or math.isinf(value):
                raise UsageError(
                    f"{name} is {value:g}; it must be "
                    + (f"between {least} and {most}." if most < math.inf else f"at least {least}.")
                )
        if self.selection and not SELECTIONS.fullmatch(self.selection):
            raise UsageError(
                f"--selection is {self.selection!r}; it must be random, least-seen or stratified:LABEL."
            )
        try:
            check_requirements(self.require)
        except RunFailed as error:
            raise UsageError(str(error)) from error

    def run_config(self) -> dict[str, ConfigValue]:
        """Settings for the app."""
        return {
            key: value
            for key, value in self.settings.items()
            if not key.startswith(STRATEGY_PREFIX)
        }

    def strategy_params(self) -> dict[str, ConfigValue]:
        """Settings for the strategy."""
        return {
            key.removeprefix(STRATEGY_PREFIX): value
            for key, value in self.settings.items()
            if key.startswith(STRATEGY_PREFIX)
        }


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run as it will be asked for: everything resolved."""

    app: FlowerApp
    app_digest: str
    options: RunOptions
    devices: int
    rounds: int
    fleet: str

    def parameters(self) -> dict[str, str | int | float]:
        """The pipeline's parameters; raises UsageError when one would be too long for SageMaker."""
        options = self.options
        run_config = {**options.run_config(), ROUNDS_KEY: self.rounds}
        values: dict[str, str | int | float] = {
            "AppDigest": self.app_digest,
            "AppName": self.app.name,
            "Fleet": self.fleet,
            "NumRounds": self.rounds,
            "MinDevices": self.devices,
            "MaxDevices": self.devices,
            "DevicesPerProxy": options.devices_per_proxy,
            "Strategy": options.strategy or "-",
            "StrategyParameters": msgspec.json.encode(options.strategy_params()).decode(),
            "RunConfig": msgspec.json.encode(run_config).decode(),
            "Metric": options.metric or "-",
            "Goal": options.goal or "-",
            "Seed": options.seed,
            "PhaseSeconds": options.phase_seconds,
            "DeadlineSeconds": options.deadline_seconds,
            "Quorum": options.quorum,
            "QuorumFraction": options.quorum_fraction,
            "OverSelection": options.over_selection,
            "Selection": options.selection or "-",
            "Require": msgspec.json.encode(options.require).decode(),
            "Target": "-" if options.target is None else repr(options.target),
            "MaxSeconds": options.max_seconds,
            "MaxCost": options.max_cost,
            "ResumeFrom": options.resume_from or "-",
            "Experiment": options.experiment,
            "MinimumScore": options.minimum_score,
        }
        for name, value in values.items():
            if len(str(value)) > PARAMETER_LIMIT:
                raise UsageError(
                    f"The settings for {name} take {len(str(value))} characters; SageMaker allows {PARAMETER_LIMIT}."
                )
        return values


def plan(app: FlowerApp, options: RunOptions) -> RunPlan:
    """Fill in what the app says; raises UsageError or AppError."""
    unknown = [key for key in options.run_config() if key not in app.config and key != ROUNDS_KEY]
    if unknown:
        raise UsageError(
            f"The app has no setting {unknown[0]!r}; it has {', '.join(sorted(app.config)) or 'none'}."
        )
    rounds = options.rounds or app.config.get(ROUNDS_KEY, DEFAULT_ROUNDS)
    if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 1:
        raise UsageError(f"{ROUNDS_KEY} is {rounds!r}; it must be a whole number of at least 1.")
    fleet = options.fleet or package_group(app.name).lower()[:40]
    try:
        check_name("fleet", fleet)
    except ProtocolError as error:
        raise UsageError(str(error)) from error
    devices = options.devices or app.devices
    if options.quorum > devices:
        raise UsageError(
            f"--quorum is {options.quorum}, and the run has {devices} devices: no round could reach it."
        )
    return RunPlan(
        app=app,
        app_digest=app.digest(),
        options=options,
        devices=devices,
        rounds=rounds,
        fleet=fleet,
    )


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
