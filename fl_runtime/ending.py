"""When a run ends before its last round, and with which model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fl_runtime.cost import Shape, round_cost
from fl_runtime.errors import RunFailed
from fl_runtime.records import RoundRecord
from fl_runtime.run_spec import RunSpec, choose_metric, goal_of


@dataclass(frozen=True)
class Judge:
    """The metric a model is judged by. Empty: chosen from what the devices report, as the final model's is."""

    metric: str = ""
    goal: str = ""

    def score(self, reported: Mapping[str, Any]) -> float | None:
        """The metric as a score, more is better; None when it was not reported."""
        numbers = [name for name, value in reported.items() if isinstance(value, int | float)]
        try:
            metric = choose_metric(numbers, self.metric)
        except RunFailed:
            return None
        value = float(reported[metric])
        return value if (self.goal or goal_of(metric)) == "maximize" else -value

    def reached(self, reported: Mapping[str, Any], target: float) -> bool:
        """Whether the metric is as good as ``target`` (a value of the metric, not a score)."""
        score = self.score(reported)
        if score is None:
            return False
        numbers = [name for name, value in reported.items() if isinstance(value, int | float)]
        metric = choose_metric(numbers, self.metric)
        return score >= (target if (self.goal or goal_of(metric)) == "maximize" else -target)


class Ending:
    """Watches finished rounds. ``reason`` says why no more are run; ``best`` is the best round so far."""

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
        """A budget that ran out ends the run wherever it was: then the best round's model is the run's."""

    def take(self, record: RoundRecord) -> None:
        """One finished round, also one of an earlier server."""
        cost = round_cost(self._shape, record.seconds.total, len(record.devices))
        self._last = (record.seconds.total, cost)
        self._seconds, self._cost = self._seconds + record.seconds.total, self._cost + cost
        reported = record.evaluate or record.server
        score = self._judge.score(reported)
        if score is not None and (self._best_score is None or score > self._best_score):
            self._best_score, self.best = score, record
        if self._spec.target is not None and self._judge.reached(reported, self._spec.target):
            self.reason, self.keep_best = f"the target of {self._spec.target:g} was reached in round {record.round}", False
        elif self._over():
            self.reason, self.keep_best = f"{self._over()} after round {record.round}", True

    def _over(self) -> str:
        """What would run out in a further round as long as the last one."""
        if self._spec.max_seconds and self._seconds + self._last[0] > self._spec.max_seconds:
            return f"the budget of {self._spec.max_seconds:g} s allows no further round ({self._seconds:.1f} s used)"
        if self._spec.max_cost and self._cost + self._last[1] > self._spec.max_cost:
            return f"the budget of USD {self._spec.max_cost:g} allows no further round (USD {self._cost:.4f} used)"
        return ""
