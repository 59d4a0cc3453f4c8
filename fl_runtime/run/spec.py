"""What a run is to do, as the pipeline asked for it, and who takes part. Stored in S3, read by all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from edge.protocol.messages import Digest, Goal, Name
from edge.protocol.names import run_prefix
from fl_runtime.run.errors import RunFailed

ConfigValue = bool | int | float | str

_HIGHER_IS_BETTER = ("acc", "f1", "auc", "r2", "precision", "recall", "score")


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One federated run. Times are in seconds."""

    run: Name
    fleet: Name
    app: Digest
    app_name: str
    num_rounds: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    min_devices: Annotated[int, msgspec.Meta(ge=1)]
    max_devices: Annotated[int, msgspec.Meta(ge=0)] = 0
    """0: all eligible devices."""
    devices_per_proxy: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 100
    """0: the server hosts the cohorts itself."""
    strategy: str = ""
    """A stock Flower strategy's name; empty: the app's own choice."""
    strategy_params: dict[str, ConfigValue] = {}
    run_config: dict[str, ConfigValue] = {}
    metric: str = ""
    """The evaluate metric the model is judged by; empty: chosen from what the devices report."""
    goal: Goal | Literal[""] = ""
    seed: int = 0
    phase_seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 600.0
    """How long the devices have for one train or evaluate phase."""
    deadline_seconds: Annotated[float, msgspec.Meta(gt=0, le=30 * 86_400)] = 86_400.0
    """How long the run may wait for enough devices."""
    quorum: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Valid updates that a round needs, at least."""
    quorum_fraction: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    """The same as a share of the devices that the round wants."""
    over_selection: Annotated[float, msgspec.Meta(ge=1, le=10)] = 1.3
    """So many times the wanted devices are asked to train, where there are more; the first answers
    count.
    """
    selection: Annotated[
        str, msgspec.Meta(pattern="^(|random|least-seen|stratified:[A-Za-z0-9_-]{1,40})$")
    ] = ""
    """How a round's devices are chosen; empty: as the strategy does."""
    require: dict[str, ConfigValue] = {}
    """What a device's heartbeat must say for it to be asked, see :mod:`fl_runtime.run.eligibility`.
    """
    target: float | None = None
    """The run ends early once the metric has reached this."""
    max_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Budget for all rounds together; 0: none."""
    max_cost: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Budget in USD, as estimated by :mod:`fl_runtime.run.cost`; 0: none."""
    resume_from: Annotated[str, msgspec.Meta(pattern="^(|[A-Za-z0-9][A-Za-z0-9_-]{0,62})$")] = ""
    """The run whose last finished round this one goes on from."""
    experiment: str = "mledgeops"
    pipeline_execution_arn: str = ""
    created_at: float = 0.0


class Member(msgspec.Struct, frozen=True):
    """A device in a cohort, and the node id by which Flower knows it."""

    device: Name
    node_id: int
    labels: dict[str, str] = {}


class Cohort(msgspec.Struct, frozen=True):
    """The devices that one proxy speaks to."""

    cohort: Name
    members: list[Member]


class Champion(msgspec.Struct, frozen=True, kw_only=True):
    """The model that the run's fleet uses when the run begins (``champion.json``)."""

    model_version: str
    digest: str
    app: str
    key: str
    """S3 key of its weights."""


def node_id(fleet: str, device: str) -> int:
    """A stable 63-bit Flower node id for a device (Flower keeps ids in signed 64 bits)."""
    return int.from_bytes(hashlib.sha256(f"{fleet}/{device}".encode()).digest()[:8], "big") >> 1


def flower_run_id(run: str) -> int:
    """A stable 63-bit Flower run id."""
    return node_id("run", run)


def form_cohorts(
    fleet: str,
    devices: list[str],
    devices_per_proxy: int,
    labels: Mapping[str, dict[str, str]] | None = None,
) -> list[Cohort]:
    """Split devices into cohorts of at most ``devices_per_proxy``, evenly; 0 means one cohort."""
    known = labels or {}
    if not devices:
        return []
    count = 1 if devices_per_proxy == 0 else -(-len(devices) // devices_per_proxy)
    ordered = sorted(devices)
    return [
        Cohort(
            f"c{index:04d}",
            [
                Member(device, node_id(fleet, device), known.get(device, {}))
                for device in ordered[index::count]
            ],
        )
        for index in range(count)
    ]


def spec_key(run: str) -> str:
    """S3 key of a run's specification."""
    return f"{run_prefix(run)}run.json"


def cohorts_key(run: str) -> str:
    """S3 key of a run's cohorts."""
    return f"{run_prefix(run)}cohorts.json"


def champion_key(run: str) -> str:
    """S3 key of the model that the fleet ran when a run began; ``null`` when it ran none of this
    model.
    """
    return f"{run_prefix(run)}champion.json"


def round_key(run: str, server_round: int) -> str:
    """S3 key of one finished round's record."""
    return f"{run_prefix(run)}rounds/{server_round:05d}.json"


def model_key(run: str, name: str) -> str:
    """S3 key of one file of the final model."""
    return f"{run_prefix(run)}model/{name}"


def decode_spec(data: bytes) -> RunSpec:
    """Parse a specification; raises RunFailed that names the field at fault."""
    try:
        return msgspec.json.decode(data, type=RunSpec)
    except msgspec.DecodeError as error:
        raise RunFailed("bad-run", f"The run's specification is malformed: {error}.") from error


def goal_of(metric: str) -> Goal:
    """Whether more or less of a metric is better, by its name; anything unknown is a loss."""
    name = metric.lower()
    return "maximize" if any(part in name for part in _HIGHER_IS_BETTER) else "minimize"


def score_of(value: float, goal: Goal) -> float:
    """A metric's value with its sign so that more is better: what scores are compared by."""
    return value if goal == "maximize" else -value


def choose_metric(reported: list[str], wanted: str) -> str:
    """The metric a model is judged by: the wanted one, else the first that is not a loss, else the
    first.
    """
    if wanted:
        if wanted not in reported:
            raise RunFailed(
                "metric-missing",
                f"The devices report no metric {wanted!r}; they report {', '.join(sorted(reported)) or 'none'}.",
            )
        return wanted
    if not reported:
        raise RunFailed(
            "metric-missing",
            "The devices reported no evaluate metric, so the model cannot be judged.",
        )
    return next((name for name in reported if "loss" not in name.lower()), reported[0])
