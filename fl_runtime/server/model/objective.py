"""The metric that models of a run are judged by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edge.protocol.messages import Goal
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.scoring import choose_metric, goal_of, score_of


@dataclass(frozen=True)
class ObjectiveValue:
    """A model's value of the objective."""

    metric: str
    goal: Goal
    value: float

    @property
    def score(self) -> float:
        """The value, negated for a metric to minimise: a higher score is always better."""
        return score_of(self.value, self.goal)


@dataclass(frozen=True)
class Objective:
    """A metric and whether to minimise or maximise it."""

    metric: str = ""
    """Empty: chosen from the metrics that devices report."""
    goal: Goal | Literal[""] = ""
    """Empty: known from the metric's name."""

    def value_of(self, reported: Mapping[str, Any]) -> ObjectiveValue:
        """The objective's value among reported metrics; raises RunFailed when it is missing or not
        finite.
        """
        # None: a value that JSON has no word for.
        numeric = [
            name for name, value in reported.items() if isinstance(value, int | float | None)
        ]
        metric = choose_metric(numeric, self.metric)
        value = math.nan if reported[metric] is None else float(reported[metric])
        if not math.isfinite(value):
            raise RunFailed(
                "metric-missing",
                f"The metric {metric!r} is {value}: the model cannot be judged.",
            )
        return ObjectiveValue(metric, self.goal or goal_of(metric), value)

    def value_if_reported(self, reported: Mapping[str, Any]) -> ObjectiveValue | None:
        """The same, or None: a round without an evaluation is no failure."""
        try:
            return self.value_of(reported)
        except RunFailed:
            return None
