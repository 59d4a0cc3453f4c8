"""Pre-checks of a candidate: what the policy asks of its evidence. They advise; a person decides,
and may decide otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from registry.evidence.model import Evidence, in_words
from registry.policy import Gates


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One pre-check, with the numbers that decided it."""

    name: str
    passed: bool
    message: str


def check(evidence: Evidence, gates: Gates) -> list[Check]:
    """All pre-checks, in the policy's order."""
    return [
        *_against_champion(evidence, gates),
        *_participation(evidence, gates),
        _drift(evidence, gates),
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


def _against_champion(evidence: Evidence, gates: Gates) -> Iterator[Check]:
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
    rule = "must be better" if gates.better_by > 0 else "may be worse"
    needed = (
        f"it {rule} by {abs(gates.better_by):.1%}" if gates.better_by else "it must not be worse"
    )
    yield Check(
        name="better",
        passed=-compared.worse_by >= gates.better_by,
        message=f"{numbers}: {in_words(compared.worse_by)}; {needed}",
    )
    judged = [
        group
        for group in compared.groups
        if group.champion is not None and group.devices >= gates.group_devices
    ]
    worst = max(judged, key=lambda group: group.worse_by, default=None)
    if worst is None:
        yield Check(
            name="groups",
            passed=True,
            message=f"no group has {gates.group_devices} devices that evaluated both",
        )
        return
    where = f"{worst.kind} {worst.name}: {evidence.metric} {worst.candidate:.4g}, champion {worst.champion:.4g}"
    message = f"the worst group is {where}, {in_words(worst.worse_by)}; at most {gates.group_worse_by:.1%} worse is allowed"
    yield Check(name="groups", passed=worst.worse_by <= gates.group_worse_by, message=message)


def _participation(evidence: Evidence, gates: Gates) -> Iterator[Check]:
    part = evidence.participation
    last = part.by_round[-1] if part.by_round else 0
    message = f"{last} devices made the last round; at least {gates.participants} must"
    yield Check(name="participants", passed=last >= gates.participants, message=message)
    share = part.ever / part.devices if part.devices else 0.0
    message = (
        f"{part.ever} of {part.devices} devices took part; at least {gates.participation:.0%} must"
    )
    yield Check(name="participation", passed=share >= gates.participation, message=message)
    refused = sum(part.rejected.values())
    share = refused / part.updates if part.updates else 0.0
    message = (
        f"{refused} of {part.updates} updates were refused; at most {gates.rejected:.0%} may be"
    )
    yield Check(name="rejected", passed=share <= gates.rejected, message=message)


def _drift(evidence: Evidence, gates: Gates) -> Check:
    drift = evidence.drift
    if not drift.devices:
        return Check(
            name="drift", passed=True, message="no device has reported enough predictions to tell"
        )
    named = ", ".join(f"{shift.feature} by {shift.shift:.2g}" for shift in drift.features[:3])
    message = f"on the median of {drift.devices} devices inputs have moved by {drift.score:.2g} standard deviations ({named}); {gates.drift:g} may be"
    return Check(name="drift", passed=drift.score <= gates.drift, message=message)
