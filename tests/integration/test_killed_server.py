"""A server killed at each of its steps is replaced, and the run ends with the same model."""

from __future__ import annotations

import pytest
from fakes.killed_server import check_killed_at


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("FedAvg", {"fraction_train": 0.5}),
        ("FedAdam", {"eta": 0.05}),
        ("FedAvgM", {"server_momentum": 0.9}),
        ("FedMedian", {}),
    ],
)
def test_killed_after_any_step_the_final_model_is_the_same(name: str, parameters: dict) -> None:
    check_killed_at(name, parameters, slice(None))
