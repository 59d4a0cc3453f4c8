"""The evidence of one version: collected when it is registered, never changed afterwards.

It is stored as JSON (``evidence.json``), so field names stay as they are. The model card
(:mod:`registry.evidence.card`) shows it, the prechecks (:mod:`registry.evidence.prechecks`) judge
it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edge.protocol.messages import Goal

WORST = 10
"""Number of worst devices that are named."""
EXAMPLES = "num-examples"
"""Metric with the number of examples of a device, the weight in means."""


class GroupEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Devices of one cohort, or with the same label.

    ``candidate`` and ``champion`` are means of the metric, weighted by examples, over the devices
    that evaluated both models (over all of them where there is no champion).
    """

    kind: str
    """``cohort``, or the label's name."""
    name: str
    devices: int
    examples: float
    candidate: float
    champion: float | None = None
    worse_by: float = 0.0
    """See :func:`worse_by`."""


class DeviceEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """The metric on one device's own held-out data."""

    device: str
    candidate: float
    champion: float | None = None
    worse_by: float = 0.0
    """See :func:`worse_by`."""
    examples: float = 0.0


class ComparisonSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Candidate and champion on the same devices' data."""

    champion: str = ""
    """The champion as NAME/NUMBER; empty: there was none."""
    champion_digest: str = ""
    reason: str = ""
    """Why there is no comparison."""
    round: int = 0
    devices: int = 0
    better_on: int = 0
    """Number of devices on which the candidate is better."""
    candidate: float | None = None
    """Mean over the devices, weighted by examples."""
    champion_value: float | None = None
    candidate_robust: float | None = None
    """The same as decisions use it: :mod:`fl_runtime.run.robust`."""
    champion_robust: float | None = None
    worse_by: float = 0.0
    """Of the robust means, see :func:`worse_by`."""
    outliers: list[str] = []
    """Devices whose metric is out of all proportion, for one of the two models."""
    groups: list[GroupEvaluation] = []
    """The worst first."""
    worst: list[DeviceEvaluation] = []
    """The worst devices first: against the champion where there is one, else by the metric."""
    distribution: list[float] = []
    """The candidate's metric on each device, sorted."""


class Participation(msgspec.Struct, frozen=True, kw_only=True):
    """Which of the run's devices took part."""

    devices: int
    """All devices of the run."""
    ever: int
    """Devices whose update counted at least once."""
    by_round: list[int]
    """Devices whose update counted."""
    wanted_by_round: list[int]
    """Devices that were asked to train."""
    failures: dict[str, int] = {}
    """Failed device phases by reason code."""
    rejected: dict[str, int] = {}
    """Rejected updates by reason code."""
    updates: int = 0
    """All updates received, rejected or not."""
    absent: list[str] = []
    """Devices that never took part, at most 50."""
    offenders: dict[str, int] = {}
    """Rejected updates by device, for the 10 devices with most of them."""


class FeatureShift(msgspec.Struct, frozen=True, kw_only=True):
    """One input of the champion: its first window of predictions against its latest."""

    feature: str
    shift: float
    """Difference of the means, in standard deviations of the first window."""
    spread: float
    """Ratio of the standard deviations, latest to first."""


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """Drift of the champion's inputs and residuals on the devices."""

    devices: int = 0
    """Devices with enough predictions in both windows."""
    drifted: int = 0
    """Those of them whose inputs have shifted by more than one standard deviation."""
    score: float = 0.0
    """Largest shift of any input, on the median device."""
    features: list[FeatureShift] = []
    """Medians over the devices, the largest shift first."""
    residual: float | None = None
    """Ratio of the residuals, latest to first, on the median device."""
    predictions: int = 0


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """How many examples the candidate was trained on in the last round."""

    examples: float
    least: float
    """On the device with the fewest."""
    median: float
    most: float
    champion_examples: float | None = None
    """The champion's own ``examples``, where its evidence exists."""


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What the run took."""

    seconds: float
    usd: float
    """An estimate, see :mod:`fl_runtime.run.cost`."""
    bytes_up: int
    bytes_down: int
    device_seconds: float
    """Time at work, summed over the devices."""


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
    """S3 address of the model package's archive."""
    strategy: str
    seed: int
    rounds: int
    parameters: dict[str, str]
    """``app.`` and ``strategy.`` options."""
    updates: dict[str, str] = {}
    """SHA-256 of the updates of the last round, by device, at most 1,000."""
    resumed_from: str = ""
    """Run whose rounds this one continued."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence of one version."""

    model_version: str
    """NAME/NUMBER."""
    metric: str
    """Name of the metric that the version is judged by."""
    goal: Goal
    value: float | None
    """The metric as the app reports it; None when nothing judges the model."""
    registered_at: float
    """Unix seconds."""
    fleet: str
    description: str
    licence: str
    intended_use: str
    curves: dict[str, list[tuple[int, float]]]
    """Metrics by name (``evaluate.accuracy``, ``train.loss``): (round, value)."""
    compared: ComparisonSummary
    participation: Participation
    coverage: Coverage
    drift: Drift
    costs: Costs
    lineage: Lineage


def worse_by(candidate: float, champion: float, goal: Goal) -> float:
    """How much worse the candidate is, as a share of the champion's metric; negative: better.

    For a champion with the metric 0 it is the difference itself.
    """
    difference = champion - candidate if goal == "maximize" else candidate - champion
    return difference / abs(champion) if champion else difference


def in_words(worse: float) -> str:
    """A share from :func:`worse_by` as text."""
    return "as good" if worse == 0 else f"{abs(worse):.1%} {'worse' if worse > 0 else 'better'}"


def weighted_mean(values: Sequence[tuple[float, float]]) -> float:
    """The mean of (value, weight) pairs; unweighted where no weight is positive."""
    total = sum(weight for _, weight in values)
    if total <= 0:
        return sum(value for value, _ in values) / len(values)
    return sum(value * weight for value, weight in values) / total


def as_number(value: object) -> float | None:
    """A reported metric as a number, else None: devices may report anything."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
