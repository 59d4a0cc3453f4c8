"""Prechecks: what the policy asks of a candidate's evidence.

They advise: a person decides, and may override them.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from fl_runtime.run.scoring import NOT_JUDGED
from registry.evidence.model import ComparisonSummary, Drift, Evidence, Participation, in_words
from registry.policy import PrecheckPolicy


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one precheck."""

    name: str
    passed: bool
    message: str
    """The numbers that decided it."""


def check(evidence: Evidence, policy: PrecheckPolicy) -> list[Check]:
    """All prechecks, in the order of the policy's keys."""
    return [
        *_judged(evidence),
        *_better(evidence.compared, evidence.metric, policy),
        *_participation(evidence.participation, policy),
        _metrics(evidence.compared, evidence.metric, policy),
        _drift(evidence.drift, policy),
    ]


def failed(checks: list[Check]) -> str:
    """The failed checks in one sentence; empty when all passed."""
    wrong = [item for item in checks if not item.passed]
    if not wrong:
        return ""
    reasons = "; ".join(f"{item.name}: {item.message}" for item in wrong)
    return f"{len(wrong)} of {len(checks)} prechecks fail: {reasons}"


def _judged(evidence: Evidence) -> Iterator[Check]:
    """Fails for a model without a metric: a person must look at what else there is."""
    if evidence.metric == NOT_JUDGED:
        message = (
            "no metric judges the model: no device evaluated it, the app has no evaluate_fn, and "
            "training reported none"
        )
        yield Check(name="judged", passed=False, message=message)


def _better(compared: ComparisonSummary, metric: str, policy: PrecheckPolicy) -> Iterator[Check]:
    if not compared.champion:
        reason = compared.reason or "the fleet runs no version"
        yield Check(name="better", passed=True, message=f"there is no champion to beat ({reason})")
        return
    if compared.candidate is None or compared.champion_value is None:
        message = (
            f"it could not be compared with {compared.champion} on the devices' data: "
            f"{compared.reason}"
        )
        yield Check(name="better", passed=False, message=message)
        return
    rule = "must be better" if policy.better_by > 0 else "may be worse"
    limit = (
        f"it {rule} by {abs(policy.better_by):.1%}" if policy.better_by else "it must not be worse"
    )
    message = (
        f"{metric} {_both(compared.candidate, compared.candidate_robust)}, champion "
        f"{_both(compared.champion_value, compared.champion_robust)} on "
        f"{compared.devices} devices: {in_words(compared.worse_by)}; {limit}"
    )
    passed = -compared.worse_by >= policy.better_by
    yield Check(name="better", passed=passed, message=message)
    yield _groups(compared, metric, policy)


def _both(mean: float, robust: float | None) -> str:
    """A mean, and the robust one where it differs."""
    if robust is None or f"{robust:.4g}" == f"{mean:.4g}":
        return f"{mean:.4g}"
    return f"{mean:.4g} (robust {robust:.4g})"


def _metrics(compared: ComparisonSummary, metric: str, policy: PrecheckPolicy) -> Check:
    far = compared.outliers
    share = len(far) / compared.devices if compared.devices else 0.0
    message = f"no device reports {metric} out of all proportion"
    if far:
        message = (
            f"{len(far)} of {compared.devices} devices report {metric} out of all proportion "
            f"({', '.join(far[:3])}); limit {policy.outliers:.0%}"
        )
    return Check(name="metrics", passed=share <= policy.outliers, message=message)


def _groups(compared: ComparisonSummary, metric: str, policy: PrecheckPolicy) -> Check:
    judged = [
        group
        for group in compared.groups
        if group.champion is not None and group.devices >= policy.group_devices
    ]
    worst = max(judged, key=lambda group: group.worse_by, default=None)
    if worst is None:
        message = f"no group has {policy.group_devices} devices that evaluated both"
        return Check(name="groups", passed=True, message=message)
    message = (
        f"the worst group is {worst.kind} {worst.name}: {metric} {worst.candidate:.4g}, champion "
        f"{worst.champion:.4g}, {in_words(worst.worse_by)}; limit {policy.group_worse_by:.1%} worse"
    )
    passed = worst.worse_by <= policy.group_worse_by
    return Check(name="groups", passed=passed, message=message)


def _participation(part: Participation, policy: PrecheckPolicy) -> Iterator[Check]:
    last = part.by_round[-1] if part.by_round else 0
    yield Check(
        name="participants",
        passed=last >= policy.participants,
        message=f"{last} devices took part in the last round; at least {policy.participants} must",
    )
    share = part.ever / part.devices if part.devices else 0.0
    least = f"at least {policy.participation:.0%} must"
    yield Check(
        name="participation",
        passed=share >= policy.participation,
        message=f"{part.ever} of {part.devices} devices took part; {least}",
    )
    rejected = sum(part.rejected.values())
    share = rejected / part.updates if part.updates else 0.0
    yield Check(
        name="rejected",
        passed=share <= policy.rejected,
        message=f"{rejected} of {part.updates} updates were rejected; limit {policy.rejected:.0%}",
    )


def _drift(drift: Drift, policy: PrecheckPolicy) -> Check:
    if not drift.devices:
        message = "no device has reported enough predictions to tell"
        return Check(name="drift", passed=True, message=message)
    named = ", ".join(f"{shift.feature} by {shift.shift:.2g}" for shift in drift.features[:3])
    message = (
        f"on the median of {drift.devices} devices inputs have moved by {drift.score:.2g} standard "
        f"deviations ({named}); limit {policy.drift:g}"
    )
    return Check(name="drift", passed=drift.score <= policy.drift, message=message)
