"""The metric that judges a model, and which way it is better."""

from __future__ import annotations

import pytest

from fl_runtime.run.errors import RunFailed
from fl_runtime.run.scoring import NO_CHAMPION, choose_metric, goal_of, score_of


@pytest.mark.parametrize(
    ("metric", "goal"),
    [
        ("rmse_kw", "minimize"),
        ("loss", "minimize"),
        ("eval_acc", "maximize"),
        ("accuracy", "maximize"),
        ("r2", "maximize"),
    ],
)
def test_goals_are_known_by_name(metric: str, goal: str) -> None:
    assert goal_of(metric) == goal


def test_a_higher_score_is_better_whatever_the_goal() -> None:
    assert score_of(0.9, "maximize") > score_of(0.8, "maximize")
    assert score_of(0.1, "minimize") > score_of(0.2, "minimize") > NO_CHAMPION


def test_the_judging_metric_is_chosen_or_refused() -> None:
    assert choose_metric(["loss", "accuracy"], "") == "accuracy"
    assert choose_metric(["loss"], "") == "loss"
    with pytest.raises(RunFailed, match="report no metric 'f1'"):
        choose_metric(["loss"], "f1")
    with pytest.raises(RunFailed, match="no evaluate metric"):
        choose_metric([], "")
