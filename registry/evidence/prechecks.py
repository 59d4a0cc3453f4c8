"""Pre-checks of a candidate: what the policy asks of its evidence. They advise; a person decides,
and may decide otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from registry.evidence.model import Evidence, in_words
from registry.policy import PrecheckPolicy


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One pre-check, with the numbers that decided it."""

    name: str
    passed: bool
    message: str


def check(evidence: Evidence, policy: PrecheckPolicy) -> list[Check]:
    """All pre-checks, in the policy's order."""
    return [
        *_against_champion(evidence, policy),
        *_participation(evidence, policy),
        _drift(evidence, policy),
    ]


def failed(checks: list[Check]) -> str:
    """The checks that did not pass, in one sentence; empty when all did."""
    wrong = [item for item in checks if not item.passed]
    return (
        f"{len(wrong)} of {len(checks)} pre-checks fail: "
        + "; ".join(f"{item.name}: {item.message}" for item in wrong)
        if wrong
        else ""
    )


def _against_champion(evidence: Evidence, policy: PrecheckPolicy) -> Iterator[Check]:
    compared = evidence.compared
    if not compared.champion:
        yield Check(
            name="better",
            passed=True,
            message=f"there is no champion to beat ({compared.reason or 'the fleet runs no version'})",
        )
        return
    if compared.candidate is None or compared.champion_value is None:
        message = f"it could not be compared with {compared.champion} on the devices' data: {compared.reason}"
        yield Check(name="better", passed=False, message=message)
        return
    numbers = f"{evidence.metric} {compared.candidate:.4g}, champion {compared.champion_value:.4g} on {compared.devices} devices"
    rule = "must be better" if policy.better_by > 0 else "may be worse"
    needed = (
        f"it {rule} by {abs(policy.better_by):.1%}" if policy.better_by else "it must not be worse"
    )
    yield Check(
        name="better",
        passed=-compared.worse_by >= policy.better_by,
        message=f"{numbers}: {in_words(compared.worse_by)}; {needed}",
    )
    judged = [
        group
        for group in compared.groups
        if group.champion is not None and group.devices >= policy.group_devices
    ]
    worst = max(judged, key=lambda group: group.worse_by, default=None)
    if worst is None:
        yield Check(
            name="groups",
            passed=True,
            message=f"no group has {policy.group_devices} devices that evaluated both",
        )
        return
    where = f"{worst.kind} {worst.name}: {evidence.metric} {worst.candidate:.4g}, champion {worst.champion:.4g}"
    message = f"the worst group is {where}, {in_words(worst.worse_by)}; at most {policy.group_worse_by:.1%} worse is allowed"
    yield Check(name="groups", passed=worst.worse_by <= policy.group_worse_by, message=message)


def _participation(evidence: Evidence, policy: PrecheckPolicy) -> Iterator[Check]:
    part = evidence.participation
    last = part.by_round[-1] if part.by_round else 0
    message = f"{last} devices made the last round; at least {policy.participants} must"
    yield Check(name="participants", passed=last >= policy.participants, message=message)
    share = part.ever / part.devices if part.devices else 0.0
    message = (
        f"{part.ever} of {part.devices} devices took part; at least {policy.participation:.0%} must"
    )
    yield Check(name="participation", passed=share >= policy.participation, message=message)
    refused = sum(part.rejected.values())
    share = refused / part.updates if part.updates else 0.0
    message = (
        f"{refused} of {part.updates} updates were refused; at most {policy.rejected:.0%} may be"
    )
    yield Check(name="rejected", passed=share <= policy.rejected, message=message)


def _drift(evidence: Evidence, policy: PrecheckPolicy) -> Check:
    drift = evidence.drift
    if not drift.devices:
        return Check(
            name="drift", passed=True, message="no device has reported enough predictions to tell"
        )
    named = ", ".join(f"{shift.feature} by {shift.shift:.2g}" for shift in drift.features[:3])
    message = f"on the median of {drift.devices} devices inputs have moved by {drift.score:.2g} standard deviations ({named}); {policy.drift:g} may be"
    return Check(name="drift", passed=drift.score <= policy.drift, message=message)
