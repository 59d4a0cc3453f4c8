"""What an app declares of its metrics."""

from __future__ import annotations

import pytest

from fl_runtime.run.errors import RunFailed
from fl_runtime.run.metric_rules import MetricRules, metric_rules


def test_names_by_phase_and_ranges() -> None:
    found = metric_rules({"metrics": {"evaluate": ["accuracy"]}, "ranges": {"accuracy": [0, 1]}})
    assert found == MetricRules({"evaluate": ["accuracy"]}, {"accuracy": (0.0, 1.0)})
    assert metric_rules({"metric": "accuracy"}) == MetricRules()
    assert metric_rules({"ranges": {"bias": [0, 0]}}).ranges == {"bias": (0.0, 0.0)}
    assert metric_rules({"metrics": {"train": ["loss"]}}).names == {"train": ["loss"]}


@pytest.mark.parametrize(
    "settings",
    [
        {"metrics": ["accuracy"]},
        {"metrics": {"test": ["accuracy"]}},
        {"ranges": {"accuracy": [0]}},
        {"ranges": {"accuracy": [1, 0]}},
        {"ranges": {"accuracy": [0, float("inf")]}},
        {"ranges": {"accuracy": [float("-inf"), 0]}},
        {"ranges": {"accuracy": "0 to 1"}},
    ],
)
def test_what_is_malformed_is_named(settings: dict) -> None:
    with pytest.raises(RunFailed, match=r"\[tool.mledgeops\]"):
        metric_rules(settings)
