"""Which devices a round asks.

A choice depends on the run's seed, the round, the attempt and the devices' history, and on nothing
else, so a resumed run makes the same choices.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence

from fl_runtime.run.cohorts import Cohort, Member
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.rounds.device_history import DeviceHistory


def without_excluded(
    members: Sequence[Member], history: DeviceHistory, number: int, at_least: int
) -> list[Member]:
    """The members that round ``number`` may ask.

    Excluded devices come back, in the order of their names, when fewer than ``at_least`` remain.
    """
    out = history.excluded(number)
    stay = [member for member in members if member.device not in out]
    if len(stay) >= at_least:
        return stay
    excluded = (member for member in members if member.device in out)
    return [*stay, *_by_name(excluded)[: at_least - len(stay)]]


def select(
    spec: RunSpec,
    members: Sequence[Member],
    count: int,
    history: DeviceHistory,
    number: int,
    attempt: int,
) -> list[Member]:
    """Select ``count`` of the members by the run's selection policy."""
    policy, _, label = spec.selection.partition(":")
    rng = _rng(spec, number, attempt, "select")
    # Sorted, so that a seed's choice does not depend on how devices were split into cohorts.
    ordered = _by_name(members)
    if policy == "least-seen":
        return _least_trained(ordered, count, rng, history)
    if policy == "stratified":
        return _stratified(ordered, count, rng, label)
    return rng.sample(ordered, min(count, len(ordered)))


def over_select(
    spec: RunSpec,
    cohorts: Sequence[Cohort],
    selected: Sequence[Member],
    available: Sequence[Member],
    number: int,
    attempt: int,
) -> list[Member]:
    """Further members to ask, so that the over-selection factor is met.

    Bonawitz et al. 2019, section 4 (https://arxiv.org/abs/1902.01046): a round asks more devices
    than it wants, and is over when the wanted number has answered. Only cohorts with a selected
    device take part, because each cohort ends its part by itself.
    """
    wanted = {member.device for member in selected}
    free = {member.device for member in available} - wanted
    candidates: list[Member] = []
    for cohort in cohorts:
        if any(member.device in wanted for member in cohort.members):
            candidates += [member for member in cohort.members if member.device in free]
    count = math.ceil(len(selected) * spec.over_selection) - len(selected)
    # "spares" is part of the random seed: another word would change the runs of a seed.
    rng = _rng(spec, number, attempt, "spares")
    return rng.sample(_by_name(candidates), min(len(candidates), count))


def _least_trained(
    members: Sequence[Member], count: int, rng: random.Random, history: DeviceHistory
) -> list[Member]:
    """Round robin: the members that trained least often; ties are broken at random."""
    ties = {member.device: rng.random() for member in members}
    return sorted(
        members, key=lambda member: (history.times_trained[member.device], ties[member.device])
    )[:count]


def _stratified(
    members: Sequence[Member], count: int, rng: random.Random, label: str
) -> list[Member]:
    """In turn one member of each value of the label, so that small groups are represented.

    Devices without the label form a group of their own.
    """
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(member.labels.get(label, ""), []).append(member)
    for group in groups.values():
        rng.shuffle(group)
    turns = sorted(groups)
    rng.shuffle(turns)
    chosen: list[Member] = []
    while len(chosen) < min(count, len(members)):
        for value in turns:
            if groups[value] and len(chosen) < count:
                chosen.append(groups[value].pop())
    return chosen


def _by_name(members: Iterable[Member]) -> list[Member]:
    return sorted(members, key=lambda member: member.device)


def _rng(spec: RunSpec, number: int, attempt: int, purpose: str) -> random.Random:
    # A fair choice, no secret.
    return random.Random(f"{spec.seed} {number} {attempt} {purpose}")  # noqa: S311
