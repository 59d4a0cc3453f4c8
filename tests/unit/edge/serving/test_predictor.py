"""Each request gets one answer: outputs, or an error with a code."""

from __future__ import annotations

import json

import pytest
from fakes.turbine import Turbine

from edge.serving.model import Model
from edge.serving.predictor import answer, refusal


@pytest.fixture
def model(turbine: Turbine) -> Model:
    """A model that doubles the sum of a row."""
    turbine.use(2.0, turbine.app())
    return Model(turbine.home)


def test_rows_and_objects_are_answered_by_the_model_in_use(model: Model) -> None:
    assert json.loads(answer(model, b'{"inputs": [[1, 2], [3, 4]]}')) == {
        "model_version": "power/1",
        "outputs": [6.0, 14.0],
    }
    line = b'{"inputs": [{"wind": 1, "angle": 2}], "truth": [5]}'
    assert json.loads(answer(model, line))["outputs"] == [6.0]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", "malformed"),
        (b"[" * 100_000, "malformed"),
        (b'{"inputs": [], "more": 1}', "malformed"),
        (b'{"inputs": []}', "predict"),
        (b'{"inputs": [[1, 2, 3]]}', "predict"),
    ],
)
def test_a_bad_request_or_a_failing_app_is_an_error(model: Model, line: bytes, code: str) -> None:
    error = json.loads(answer(model, line))["error"]
    assert error["code"] == code
    assert len(error["message"]) <= 500


def test_without_a_model_it_says_so(turbine: Turbine) -> None:
    error = json.loads(answer(Model(turbine.home), b'{"inputs": [[1]]}'))["error"]
    assert error == {"code": "no-model", "message": "This device uses no model yet."}


def test_a_refusal_is_one_line_of_json() -> None:
    assert refusal("deadline", "too\nlate").count(b"\n") == 0
