"""What an approver judges a candidate by: collected once, when it is registered, and never changed
after.

The model card (:mod:`registry.evidence.card`) shows it, the pre-checks
(:mod:`registry.evidence.prechecks`) read it.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edge.protocol.messages import Goal

WORST = 10
"""Devices that are named."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Devices that belong together, by cohort or by a label that their configuration gives them."""

    kind: str
    """``cohort``, or the label's name."""
    name: str
    devices: int
    examples: float
    candidate: float
    champion: float | None = None
    """Means of the metric, weighted by examples, over the devices that evaluated both (all of them
    where there is no champion).
    """
    worse_by: float = 0.0
    """By what share of the champion's metric the candidate is worse; negative when it is better."""


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One device's own evaluation, on the data that it holds out."""

    device: str
    candidate: float
    champion: float | None = None
    worse_by: float = 0.0
    examples: float = 0.0


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """The candidate and the champion on the same devices' data."""

    champion: str = ""
    """The champion's version as NAME/NUMBER; empty: there was none."""
    champion_digest: str = ""
    reason: str = ""
    """Why there is no comparison."""
    round: int = 0
    devices: int = 0
    better_on: int = 0
    candidate: float | None = None
    champion_value: float | None = None
    worse_by: float = 0.0
    groups: list[Group] = []
    """The worst first."""
    worst: list[Device] = []
    """The devices on which the candidate does worst, against the champion where there is one."""
    distribution: list[float] = []
    """Each device's value of the metric, sorted: the candidate's."""


class Participation(msgspec.Struct, frozen=True, kw_only=True):
    """Who took part, and who did not."""

    devices: int
    """Of the run."""
    ever: int
    """Whose update counted at least once."""
    by_round: list[int]
    wanted_by_round: list[int]
    failures: dict[str, int] = {}
    """Device phases that came to nothing, by reason code."""
    rejected: dict[str, int] = {}
    """Updates that came and were refused, by reason code."""
    updates: int = 0
    """Updates that came, good or not."""
    absent: list[str] = []
    """Devices that never took part, by name, at most 50."""
    offenders: dict[str, int] = {}
    """Devices whose updates were refused, the most often refused first, at most 10."""


class FeatureShift(msgspec.Struct, frozen=True, kw_only=True):
    """One input, as the champion met it first and as it meets it now."""

    feature: str
    shift: float
    """Difference of means, in standard deviations of the first."""
    spread: float
    """Ratio of the standard deviations."""


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """What devices say of the inputs and residuals of the model in use."""

    devices: int = 0
    """That reported enough of both windows."""
    drifted: int = 0
    """Of them, those whose inputs have moved by more than one standard deviation."""
    score: float = 0.0
    """The median device's largest shift."""
    features: list[FeatureShift] = []
    residual: float | None = None
    """The median ratio of the residuals now and at first."""
    predictions: int = 0


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """How much data the model was made of."""

    examples: float
    least: float
    median: float
    most: float
    champion_examples: float | None = None
    """Of the champion's own run, where its evidence is there."""


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What the run took."""

    seconds: float
    usd: float
    bytes_up: int
    bytes_down: int
    device_seconds: float


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """From the pipeline down to each device's update."""

    pipeline_execution_arn: str
    execution_arn: str
    run: str
    mlflow_run_id: str
    model_package_arn: str
    app: str
    app_version: str
    app_digest: str
    model_digest: str
    model_data: str
    strategy: str
    seed: int
    rounds: int
    parameters: dict[str, str]
    updates: dict[str, str] = {}
    """SHA-256 of the updates of the round that made the model, by device, at most 1,000."""
    resumed_from: str = ""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence pack of one version."""

    model_version: str
    metric: str
    goal: Goal
    value: float
    registered_at: float
    fleet: str
    description: str
    licence: str
    intended_use: str
    curves: dict[str, list[tuple[int, float]]]
    """By name (``evaluate.accuracy``, ``train.loss``): (round, value)."""
    compared: Compared
    participation: Participation
    coverage: Coverage
    drift: Drift
    costs: Costs
    lineage: Lineage


def worse_by(candidate: float, champion: float, goal: Goal) -> float:
    """By what share of the champion's metric the candidate is worse; negative when it is better.
    Against 0: the difference itself.
    """
    difference = champion - candidate if goal == "maximize" else candidate - champion
    return difference / abs(champion) if champion else difference


def in_words(worse: float) -> str:
    """How a share from :func:`worse_by` reads."""
    return "as good" if worse == 0 else f"{abs(worse):.1%} {'worse' if worse > 0 else 'better'}"


def weighted(values: Mapping[str, tuple[float, float]]) -> float:
    """Mean of (value, weight); the plain one where no weight is above 0."""
    total = sum(weight for _, weight in values.values())
    if total <= 0:
        return sum(value for value, _ in values.values()) / len(values)
    return sum(value * weight for value, weight in values.values()) / total
