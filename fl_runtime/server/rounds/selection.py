"""Which devices a round asks. Choices depend on the run's seed, the round and what devices did
before, on nothing else.

Over-selection as in Bonawitz et al. 2019, section 4 (https://arxiv.org/abs/1902.01046): more
devices than wanted
are asked, and the round is over when the wanted number has answered.
"""

from __future__ import annotations

import collections
import math
import random
import statistics
from collections.abc import Callable, Sequence

from fl_runtime.run.cohorts import Cohort, Member
from fl_runtime.run.records import RoundRecord
from fl_runtime.run.spec import RunSpec

FAILURES_RUNNING = 3
"""A device that fails so many rounds running is left out ..."""
LEFT_OUT_ROUNDS = 5
"""... for so many rounds; then it gets one more chance."""
NORM_FACTOR = 10.0
"""An update whose change is so many times the usual does not count."""
NORM_ROUNDS = 3
"""Rounds by whose updates the usual is known."""


class History:
    """What the devices did in finished rounds. Made of round records alone, so a resumed run has
    the same.
    """

    def __init__(self) -> None:
        self.seen: collections.Counter[str] = collections.Counter()
        self._failing: collections.Counter[str] = collections.Counter()
        self._out_until: dict[str, int] = {}
        self._norms: collections.deque[float] = collections.deque(maxlen=NORM_ROUNDS)

    def take(self, record: RoundRecord) -> None:
        """One finished round."""
        asked = {row.device for row in record.devices if row.status in ("ok", "error")}
        failed = {row.device for row in record.devices if row.status == "error"}
        self.seen.update({row.device for row in record.devices if row.kind.startswith("train")})
        for device in asked - failed:
            self._failing.pop(device, None)
        for device in failed:
            self._failing[device] += 1
            if self._failing[device] >= FAILURES_RUNNING:
                self._out_until[device] = record.round + LEFT_OUT_ROUNDS
        norms = [row.norm for row in record.devices if row.status == "ok" and row.norm > 0]
        if norms:
            self._norms.append(statistics.median(norms))

    def left_out(self, number: int) -> set[str]:
        """Devices that round ``number`` does not ask."""
        return {device for device, until in self._out_until.items() if number <= until}

    def norm_limit(self) -> float:
        """The largest norm of a change that counts; 0 while nothing is known."""
        return NORM_FACTOR * max(self._norms) if self._norms else 0.0


def available(
    members: Sequence[Member], history: History, number: int, at_least: int
) -> list[Member]:
    """The members that round ``number`` may ask. Those left out come back when too few would
    remain.
    """
    out = history.left_out(number)
    stay = [member for member in members if member.device not in out]
    if len(stay) >= at_least:
        return stay
    back = sorted((member for member in members if member.device in out), key=lambda m: m.device)[
        : at_least - len(stay)
    ]
    return [*stay, *back]


Policy = Callable[[Sequence[Member], int, random.Random, History], list[Member]]


def choose(
    spec: RunSpec,
    members: Sequence[Member],
    count: int,
    history: History,
    number: int,
    attempt: int,
) -> list[Member]:
    """``count`` of the members by the run's policy; the same for the same seed, round and history."""
    policy, _, label = spec.selection.partition(":")
    dice = _dice(spec, number, attempt, "select")
    ordered = sorted(members, key=lambda member: member.device)
    if policy == "least-seen":
        return _least_seen(ordered, count, dice, history)
    if policy == "stratified":
        return _stratified(ordered, count, dice, label)
    return dice.sample(ordered, min(count, len(ordered)))


def with_spares(
    spec: RunSpec,
    cohorts: Sequence[Cohort],
    chosen: Sequence[Member],
    members: Sequence[Member],
    number: int,
    attempt: int,
) -> list[Member]:
    """Members to ask besides those chosen, so that ``over_selection`` times as many are asked.

    They are of cohorts that have somebody chosen: each cohort ends its part by itself, when as many
    have answered.
    """
    wanted, free = {member.device for member in chosen}, {member.device for member in members}
    rest: list[Member] = []
    for cohort in cohorts:
        if any(member.device in wanted for member in cohort.members):
            rest += [member for member in cohort.members if member.device in free - wanted]
    count = math.ceil(len(chosen) * spec.over_selection) - len(chosen)
    return _dice(spec, number, attempt, "spares").sample(
        sorted(rest, key=lambda m: m.device), min(len(rest), count)
    )


def _least_seen(
    members: Sequence[Member], count: int, dice: random.Random, history: History
) -> list[Member]:
    """Round robin: those that have trained least often, ties by lot."""
    lots = {member.device: dice.random() for member in members}
    return sorted(members, key=lambda member: (history.seen[member.device], lots[member.device]))[
        :count
    ]


def _stratified(
    members: Sequence[Member], count: int, dice: random.Random, label: str
) -> list[Member]:
    """In turn one of each value of the label (devices without it are a value of their own), so that
    small groups are heard.
    """
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(member.labels.get(label, ""), []).append(member)
    for group in groups.values():
        dice.shuffle(group)
    turns = sorted(groups)
    dice.shuffle(turns)
    chosen: list[Member] = []
    while len(chosen) < min(count, len(members)):
        for value in turns:
            if groups[value] and len(chosen) < count:
                chosen.append(groups[value].pop())
    return chosen


def _dice(spec: RunSpec, number: int, attempt: int, purpose: str) -> random.Random:
    return random.Random(f"{spec.seed} {number} {attempt} {purpose}")  # noqa: S311  # a fair choice, no secret
