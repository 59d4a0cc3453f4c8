"""When a run ends before its last round, and with which model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edge.protocol.messages import Goal
from fl_runtime.run.cost import Shape, round_cost
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.records import RoundRecord
from fl_runtime.run.scoring import choose_metric, goal_of, score_of
from fl_runtime.run.spec import RunSpec


@dataclass(frozen=True)
class Judged:
    """What a model was judged by, and how good it is."""

    metric: str
    goal: Goal
    value: float

    @property
    def score(self) -> float:
        """The value with its sign so that more is better."""
        return score_of(self.value, self.goal)


@dataclass(frozen=True)
class Judge:
    """The metric a model is judged by. Empty: chosen from what the devices report."""

    metric: str = ""
    goal: Goal | Literal[""] = ""

    def of(self, reported: Mapping[str, Any]) -> Judged:
        """Raises RunFailed when the metric was not reported."""
        metric = choose_metric(
            [name for name, value in reported.items() if isinstance(value, int | float)],
            self.metric,
        )
        return Judged(metric, self.goal or goal_of(metric), float(reported[metric]))

    def try_of(self, reported: Mapping[str, Any]) -> Judged | None:
        """The same, None when it was not reported: a round without an evaluation is no failure."""
        try:
            return self.of(reported)
        except RunFailed:
            return None


class Ending:
    """Watches finished rounds. ``reason`` says why no more are run; ``best`` is the best round so
    far.
    """

    def __init__(self, spec: RunSpec, shape: Shape, judge: Judge) -> None:
        self._spec = spec
        self._shape = shape
        self._judge = judge
        self._seconds = self._cost = 0.0
        self._last = (0.0, 0.0)
        self._best_score: float | None = None
        self.best: RoundRecord | None = None
        self.reason = ""
        self.keep_best = False
        """A budget that ran out ends the run wherever it was: then the best round's model is the
        run's.
        """

    def take(self, record: RoundRecord) -> None:
        """One finished round, also one of an earlier server."""
        cost = round_cost(self._shape, record.seconds.total, len(record.devices))
        self._last = (record.seconds.total, cost)
        self._seconds, self._cost = self._seconds + record.seconds.total, self._cost + cost
        reported = record.evaluate or record.server
        judged, target = self._judge.try_of(reported), self._spec.target
        if judged is not None and (self._best_score is None or judged.score > self._best_score):
            self._best_score, self.best = judged.score, record
        if (
            judged is not None
            and target is not None
            and judged.score >= score_of(target, judged.goal)
        ):
            self.reason, self.keep_best = (
                f"the target of {target:g} was reached in round {record.round}",
                False,
            )
        elif over := self._over():
            self.reason, self.keep_best = f"{over} after round {record.round}", True

    def _over(self) -> str:
        """What would run out in a further round as long as the last one."""
        if self._spec.max_seconds and self._seconds + self._last[0] > self._spec.max_seconds:
            return f"the budget of {self._spec.max_seconds:g} s allows no further round ({self._seconds:.1f} s used)"
        if self._spec.max_cost and self._cost + self._last[1] > self._spec.max_cost:
            return f"the budget of USD {self._spec.max_cost:g} allows no further round (USD {self._cost:.4f} used)"
        return ""
