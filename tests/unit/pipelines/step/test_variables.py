"""Values that a pipeline knows when it runs, and joins of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.local.sagemaker.definitions.values import Scope
from pipelines.step.variables import is_variable, json_object, plain, plain_join

RATE, NAME = {"Get": "Parameters.Rate"}, {"Get": "Parameters.Name"}


class OfTheSdk:
    """As the SDK's variables: their JSON is in ``expr``."""

    expr = RATE


@pytest.mark.parametrize("value", [RATE, {"Std:Join": {}}, {"Std:JsonGet": {}}, OfTheSdk()])
def test_references_are_variables(value: object) -> None:
    assert is_variable(value)


@pytest.mark.parametrize("value", [3, "Get", {"Get": 1, "Put": 2}, {"rate": 0.1}, {}, None])
def test_values_are_not(value: object) -> None:
    assert not is_variable(value)


def test_the_sdks_variables_become_their_json() -> None:
    assert plain({"a": [OfTheSdk(), 1], "b": OfTheSdk()}) == {"a": [RATE, 1], "b": RATE}


@pytest.mark.parametrize(
    "values",
    [
        {"rate": RATE},
        {"name": NAME},
        {"rounds": 3, "rate": RATE},
        {"name": NAME, "text": 'a "b"', "rate": RATE, "on": True},
        {"rounds": 3},
        {},
    ],
)
def test_a_join_is_a_json_object_once_the_pipeline_runs(values: dict[str, Any]) -> None:
    made = json_object(values, ["name"], plain_join)
    scope = Scope({"Rate": 0.25, "Name": "adam"}, "arn/execution/1", "p")
    known = {"rate": 0.25, "name": "adam"}
    wanted = {key: known.get(key, v) if is_variable(v) else v for key, v in values.items()}
    assert json.loads(scope.resolve(made)) == wanted
