"""The one table of run options. An option is edited here, and nowhere else.

Each field of :class:`RunOptions` is an entry: its type, default, unit, bounds, meaning, pipeline
parameter, callback argument and flag. Derived from the table are the SageMaker pipeline's
parameters (:data:`PARAMETERS`), the Python options (:class:`RunOptions`), the flags of ``mledgeops
run`` and ``schedule add``, and the table in ``docs/architecture.md``. Tests hold
:class:`~fl_runtime.run.spec.RunSpec`, which the runtime reads, against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

from edge.protocol.messages import ConfigValue
from fl_runtime.run.eligibility import check_requirements
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.scoring import NO_CHAMPION
from pipelines.errors import UsageError
from pipelines.run.option import Option, Parameter, entries, option

STRATEGY_PREFIX = "strategy."
"""Begins the keys of ``--set`` that are parameters of the strategy, not settings of the app."""

_T = TypeVar("_T")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(option,))
def _table(cls: type[_T]) -> type[_T]:
    return dataclass(frozen=True, kw_only=True)(cls)


@_table
class RunOptions:
    """The options of a run. 0 or empty: the app's or the strategy's own choice."""

    devices: int = option(
        default=0,
        least=1,
        parameter="MinDevices",
        argument="min_devices",
        parameter_default=1,
        meaning="minimum number of eligible devices; the run waits for them",
        also=(
            Parameter(
                name="MaxDevices",
                argument="max_devices",
                default=0,
                meaning="maximum number of devices that take part; 0: all",
            ),
        ),
        flag="--devices",
        help="how many devices (default: the app's num-devices, else 4)",
    )
    rounds: int = option(
        default=0,
        least=1,
        most=10_000,
        parameter="NumRounds",
        argument="num_rounds",
        meaning="the app's setting for its number of rounds; 0: its own value",
        flag="--rounds",
        help="rounds of training: the app's setting num-server-rounds, or the one that its "
        "rounds-key names (default: the app's)",
    )
    devices_per_proxy: int = option(
        default=100,
        least=0,
        most=10_000,
        parameter="DevicesPerProxy",
        meaning="devices that a proxy task serves; 0: the server does it",
        flag="--devices-per-proxy",
        help="devices a proxy serves; 0: the server does it itself (default {default})",
    )
    strategy: str = option(
        default="",
        parameter="Strategy",
        meaning="a stock Flower strategy; -: the app's own",
        flag="--strategy",
        help="a stock Flower strategy, such as FedAvg, FedProx, FedAdam, Krum (default: the app's)",
    )
    settings: dict[str, ConfigValue] = option(
        default_factory=dict,
        parameter="RunConfig",
        argument="run_config",
        meaning="JSON object that overrides the app's configuration",
        also=(
            Parameter(
                name="StrategyParameters",
                argument="strategy_params",
                default="{}",
                meaning="JSON object of the strategy's parameters",
            ),
        ),
        flag="--set",
        metavar="KEY=VALUE",
        help="the app's run configuration, or strategy.PARAMETER",
    )
    metric: str = option(
        default="",
        parameter="Metric",
        meaning="the evaluate metric that judges the model; -: the app's",
        flag="--metric",
        help="the evaluate metric that judges the model",
    )
    goal: str = option(
        default="",
        choices=("minimize", "maximize"),
        parameter="Goal",
        meaning="minimize or maximize the metric; -: inferred from the metric's name",
        flag="--goal",
        help="minimize or maximize the metric",
    )
    minimum_score: float = option(
        default=NO_CHAMPION,
        parameter="MinimumScore",
        argument="",  # the pipeline's own condition reads it, the run does not
        meaning="the score (the metric, negated when less is better) a model must reach; "
        f"{NO_CHAMPION:g}: any",
        flag="--minimum-score",
        help="the score a model must reach to be registered",
    )
    fleet: str = option(
        default="",
        parameter="Fleet",
        parameter_default="default",
        meaning="the fleet whose devices take part",
        flag="--fleet",
        help="the fleet's name (default: from the app's name)",
    )
    seed: int = option(
        default=0,
        parameter="Seed",
        meaning="seed of the server's random choices",
        flag="--seed",
        help="seed of the server's random choices",
    )
    quorum: int = option(
        default=1,
        least=1,
        unit="updates",
        parameter="Quorum",
        meaning="valid updates that a round needs",
        flag="--quorum",
        help="valid updates that a round needs (default {default})",
    )
    quorum_fraction: float = option(
        default=0.0,
        least=0,
        most=1,
        parameter="QuorumFraction",
        meaning="the same as a share of the devices that a round wants",
        flag="--quorum-fraction",
        help="the same as a share of the devices that a round wants, 0 to 1",
    )
    over_selection: float = option(
        default=1.0,
        least=1,
        most=10,
        parameter="OverSelection",
        meaning="over-selection factor: devices asked for each one wanted; the first to answer "
        "count; 1: none, as in Flower",
        flag="--over-selection",
        help="over-selection factor: devices asked for each one wanted; the first to answer count "
        "(default {default:g}: none)",
    )
    weight_limit: float = option(
        default=100.0,
        least=0,
        parameter="WeightLimit",
        meaning="refuse updates with more examples than this many times the phase's median, or "
        "the device's own earlier counts; 0: none",
        flag="--weight-limit",
        help="refuse updates with more examples than this many times the median, or the device's "
        "own earlier counts; 0: none (default {default:g})",
    )
    checks: str = option(
        default="",
        choices=("strict", "free"),
        parameter="Checks",
        meaning="strict: replies must have the model's layout; free: any within bounds; -: strict "
        "for Flower's own aggregation, free for an app's",
        flag="--checks",
        help="strict: replies must have the model's layout; free: any within bounds (default: "
        "strict for Flower's own aggregation, free for an app's)",
    )
    selection: str = option(
        default="",
        pattern="random|least-seen|stratified:[A-Za-z0-9_-]{1,40}",
        allowed="random, least-seen or stratified:LABEL",
        parameter="Selection",
        meaning="how devices are selected; -: as the strategy does",
        flag="--selection",
        help="random, least-seen or stratified:LABEL (default: as the strategy does)",
    )
    require: dict[str, ConfigValue] = option(
        default_factory=dict,
        parameter="Require",
        meaning="JSON object of what devices must report: idle, power, free-memory, labels",
        flag="--require",
        metavar="KEY=VALUE",
        help="idle=true, power=mains, free-memory=MIB, or a device's label",
    )
    target: float | None = option(
        default=None,
        parameter="Target",
        meaning="the value of the metric at which the run ends early; -: none",
        flag="--target",
        help="end early once the metric has reached this value",
    )
    max_seconds: float = option(
        default=0.0,
        least=0,
        unit="seconds",
        parameter="MaxSeconds",
        meaning="how long all rounds together may take; 0: any",
        flag="--max-seconds",
        help="end with the best model before the rounds take longer (default: any)",
    )
    max_cost: float = option(
        default=0.0,
        least=0,
        unit="USD",
        parameter="MaxCost",
        meaning="what the rounds may cost, as estimated; 0: any",
        flag="--max-cost",
        help="end with the best model before the rounds cost more, in USD as estimated "
        "(default: any)",
    )
    phase_seconds: float = option(
        default=600.0,
        above=0,
        most=86_400,
        unit="seconds",
        parameter="PhaseSeconds",
        meaning="how long the devices have for one train or evaluate phase",
        flag="--phase-seconds",
        help="seconds the devices have for one phase (default {default:g})",
    )
    deadline_seconds: float = option(
        default=300.0,
        default_on_aws=86_400.0,
        above=0,
        most=30 * 86_400,
        unit="seconds",
        parameter="DeadlineSeconds",
        meaning="how long the run may wait for enough devices",
        flag="--deadline-seconds",
        help="seconds the run waits for enough devices (default {default:g}; on AWS {on_aws:g})",
    )
    resume_from: str = option(
        default="",
        pattern="[A-Za-z0-9][A-Za-z0-9_-]{0,62}",
        allowed="a run's id",
        parameter="ResumeFrom",
        meaning="the run whose last finished round this one continues from; -: none",
    )
    experiment: str = option(
        default="",
        parameter="Experiment",
        meaning="the MLflow experiment; -: the one named after the app",
        flag="--experiment",
        help="the MLflow experiment (default: the app's name)",
    )

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of bounds."""
        for entry in TABLE:
            value = getattr(self, entry.name)
            if value != entry.default:
                entry.check(value)
        try:
            check_requirements(self.require)
        except RunFailed as error:
            raise UsageError(str(error)) from error

    def run_config(self) -> dict[str, ConfigValue]:
        """The settings of the app."""
        return {k: v for k, v in self.settings.items() if not k.startswith(STRATEGY_PREFIX)}

    def strategy_params(self) -> dict[str, ConfigValue]:
        """The settings of the strategy, without the prefix."""
        return {
            key.removeprefix(STRATEGY_PREFIX): value
            for key, value in self.settings.items()
            if key.startswith(STRATEGY_PREFIX)
        }


TABLE: tuple[Option, ...] = entries(RunOptions)

APP_PARAMETERS = (
    Parameter(
        name="AppDigest",
        argument="app",
        default="0" * 64,
        meaning="SHA-256 of the Flower app's bundle in S3 (apps/DIGEST.zip)",
    ),
    Parameter(name="AppName", argument="app_name", default="app", meaning="the app's name"),
)
"""What the app itself says: not options."""

PARAMETERS = (*APP_PARAMETERS, *(p for entry in TABLE for p in entry.parameters))
"""All parameters of the SageMaker pipeline."""


def defaults_on_aws() -> dict[str, object]:
    """Options whose defaults differ on AWS and in schedules, by name."""
    return {entry.name: entry.default_on_aws for entry in TABLE if entry.default_on_aws is not None}


def documentation() -> str:
    """The Markdown table of ``docs/architecture.md``."""
    lines = ["| parameter | flag | values | default | meaning |", "|---|---|---|---|---|"]
    lines += [_row(p, "", _words(p), f"`{p.default}`") for p in APP_PARAMETERS]
    for entry in TABLE:
        flag = f"`{entry.flag}`" if entry.flag else ""
        own, *others = entry.parameters
        default = f"`{own.default}`"
        if entry.default_on_aws is not None:
            default = f"`{entry.default}`; on AWS and in schedules {default}"
        bounds = _words(own) if entry.kind is dict else entry.bounds() or _words(own)
        values = f"{bounds}, {entry.unit}" if entry.unit else bounds
        lines.append(_row(own, flag, values, default))
        lines += [_row(p, flag, _words(p), f"`{p.default}`") for p in others]
    return "\n".join(lines)


def _row(parameter: Parameter, flag: str, values: str, default: str) -> str:
    return f"| `{parameter.name}` | {flag} | {values} | {default} | {parameter.meaning} |"


def _words(parameter: Parameter) -> str:
    """What values a parameter takes when no bounds say it."""
    return "text" if isinstance(parameter.default, str) else "a whole number"
