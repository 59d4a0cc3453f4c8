"""Which metric a model is judged by, and how two values of it compare."""

from __future__ import annotations

from collections.abc import Sequence

from edge.protocol.messages import Goal
from fl_runtime.run.errors import RunFailed

_HIGHER_IS_BETTER = ("acc", "f1", "auc", "r2", "precision", "recall", "score")

NO_CHAMPION = -1e300
"""The champion's score where there is no champion. A condition of a SageMaker pipeline compares
numbers only, so "none" is one that every model beats.
"""


NOT_JUDGED = "-"
"""The metric of a model that no metric judges: nobody evaluated it, and training reported none."""


def goal_of(metric: str) -> Goal:
    """Whether a metric is to be minimized or maximized, by its name. An unknown one is a loss."""
    name = metric.lower()
    return "maximize" if any(part in name for part in _HIGHER_IS_BETTER) else "minimize"


def score_of(value: float, goal: Goal) -> float:
    """The metric's value, negated if lower is better. Applied twice it gives the value again."""
    return value if goal == "maximize" else -value


def choose_metric(reported: Sequence[str], wanted: str) -> str:
    """The metric that a model is judged by: ``wanted``, or else the first that is not a loss, or
    else the first. Raises RunFailed when the devices did not report it.
    """
    if wanted and wanted not in reported:
        known = ", ".join(sorted(reported)) or "none"
        raise RunFailed(
            "metric-missing", f"The devices report no metric {wanted!r}; they report {known}."
        )
    if wanted:
        return wanted
    if not reported:
        raise RunFailed(
            "metric-missing",
            "The devices reported no evaluate metric, so the model cannot be judged.",
        )
    return next((name for name in reported if "loss" not in name.lower()), reported[0])
