"""A refused model is told in numbers, and in none that is not set."""

from __future__ import annotations

import pytest

from fl_runtime.run.scoring import NO_CHAMPION
from pipelines.handlers.refuse import reason_of


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        (
            {"metric": "rmse", "value": 9.0, "score": -9.0, "minimum": -5.0, "champion": -7.0},
            "The model's rmse is 9, which gives a score of -9; the minimum is -5 and the champion "
            "has -7.",
        ),
        (
            {"metric": "accuracy", "value": 0.8, "score": 0.8, "minimum": 0.9},
            "The model's accuracy is 0.8; the minimum is 0.9.",
        ),
        (
            {"metric": "accuracy", "value": 0.8, "score": 0.8, "champion": 0.85},
            "The model's accuracy is 0.8; the champion has 0.85.",
        ),
    ],
)
def test_a_refused_model_says_its_numbers(numbers: dict, sentence: str) -> None:
    request = {
        "metric": numbers["metric"],
        "value": str(numbers["value"]),
        "score": numbers["score"],
        "minimum_score": numbers.get("minimum", NO_CHAMPION),
        "champion_score": str(numbers.get("champion", NO_CHAMPION)),
    }
    assert reason_of(request) == sentence
    assert "300" not in reason_of(request)


def test_a_pipeline_of_0_4_asks_without_the_metrics_value() -> None:
    request = {"metric": "rmse", "score": -9, "minimum_score": -5, "champion_score": NO_CHAMPION}
    assert reason_of(request) == "The model's rmse gives a score of -9; the minimum is -5."


def test_a_model_that_nothing_judges_misses_every_minimum() -> None:
    request = {"metric": "-", "value": "0.0", "score": NO_CHAMPION, "minimum_score": 0.5}
    sentence = reason_of({**request, "champion_score": NO_CHAMPION})
    assert sentence == "No metric judges the model; the minimum is 0.5."
