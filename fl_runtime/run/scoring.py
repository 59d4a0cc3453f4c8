"""Which metric a model is judged by, and how two values of it compare."""

from __future__ import annotations

from edge.protocol.messages import Goal
from fl_runtime.run.errors import RunFailed

_HIGHER_IS_BETTER = ("acc", "f1", "auc", "r2", "precision", "recall", "score")

NO_CHAMPION = -1e300
"""The champion's score where there is no champion: every model beats it. SageMaker's conditions
compare numbers only, so "none" has to be one.
"""


def goal_of(metric: str) -> Goal:
    """Whether more or less of a metric is better, by its name; anything unknown is a loss."""
    name = metric.lower()
    return "maximize" if any(part in name for part in _HIGHER_IS_BETTER) else "minimize"


def score_of(value: float, goal: Goal) -> float:
    """A metric's value with its sign so that more is better: what scores are compared by."""
    return value if goal == "maximize" else -value


def choose_metric(reported: list[str], wanted: str) -> str:
    """The metric a model is judged by: the wanted one, else the first that is not a loss, else the
    first.
    """
    if wanted:
        if wanted not in reported:
            raise RunFailed(
                "metric-missing",
                f"The devices report no metric {wanted!r}; they report {', '.join(sorted(reported)) or 'none'}.",
            )
        return wanted
    if not reported:
        raise RunFailed(
            "metric-missing",
            "The devices reported no evaluate metric, so the model cannot be judged.",
        )
    return next((name for name in reported if "loss" not in name.lower()), reported[0])
