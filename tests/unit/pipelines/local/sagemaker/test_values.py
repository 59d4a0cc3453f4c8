"""Values of a pipeline definition in their declared types."""

from __future__ import annotations

import pytest

from pipelines.local.sagemaker.definitions.values import parameters_of, typed

DEFINITION = {
    "Parameters": [
        {"Name": "Rounds", "Type": "Integer", "DefaultValue": 3},
        {"Name": "Bar", "Type": "Float"},
        {"Name": "Fast", "Type": "Boolean", "DefaultValue": False},
    ]
}


def test_parameters_have_their_types_and_defaults() -> None:
    assert parameters_of(DEFINITION, {"Bar": "0.5", "Fast": "True"}) == {
        "Rounds": 3,
        "Bar": 0.5,
        "Fast": True,
    }


def test_unknown_missing_and_mistyped_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="Unknown parameters in the request: Nope"):
        parameters_of(DEFINITION, {"Bar": "1", "Nope": "1"})
    with pytest.raises(ValueError, match="Missing parameters: Bar"):
        parameters_of(DEFINITION, {})
    with pytest.raises(ValueError, match="could not convert"):
        parameters_of(DEFINITION, {"Bar": "high"})


def test_everything_else_is_text() -> None:
    assert typed(7, "String") == "7"
