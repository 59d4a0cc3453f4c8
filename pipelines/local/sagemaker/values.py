"""Values in a pipeline definition: parameters, references (``Get``, ``Std:Join``), conditions.

https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-properties.html
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

_STEP = re.compile(r"Steps\.([A-Za-z0-9-]+)\.(\w+)(?:\['([^']+)'\])?")

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "Equals": operator.eq,
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
}


class Scope:
    """What an execution's references refer to: its parameters and the outputs of ended steps."""

    def __init__(self, parameters: dict[str, Any], arn: str, pipeline: str) -> None:
        self.parameters = parameters
        self.outputs: dict[str, dict[str, Any]] = {}
        """By step name, then by property."""
        self._execution = {
            "PipelineExecutionArn": arn,
            "PipelineExecutionId": arn.rsplit("/", 1)[1],
            "PipelineName": pipeline,
        }

    def resolve(self, value: Any) -> Any:
        """Replace every reference in a JSON value.

        Raises:
            ValueError: A reference leads nowhere.

        """
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"Get"}:
            return self._get(value["Get"])
        if set(value) == {"Std:Join"}:
            join = value["Std:Join"]
            return join["On"].join(str(self.resolve(item)) for item in join["Values"])
        return {key: self.resolve(item) for key, item in value.items()}

    def _get(self, reference: str) -> Any:
        kind, _, rest = reference.partition(".")
        if kind == "Parameters" and rest in self.parameters:
            return self.parameters[rest]
        if kind == "Execution" and rest in self._execution:
            return self._execution[rest]
        step = _STEP.fullmatch(reference)
        if step is not None and step.group(1) in self.outputs:
            found = self.outputs[step.group(1)].get(step.group(2))
            return found[step.group(3)] if step.group(3) and found is not None else found
        raise ValueError(f"The pipeline refers to {reference}, which does not exist.")


def holds(condition: dict[str, Any], scope: Scope) -> bool:
    """Evaluate a condition.

    Raises:
        ValueError: Its type is unknown, or a reference in it leads nowhere.

    """
    kind = condition["Type"]
    if kind == "Not":
        return not holds(condition["Expression"], scope)
    if kind == "Or":
        return any(holds(item, scope) for item in condition["Conditions"])
    if kind == "In":
        return bool(scope.resolve(condition["QueryValue"]) in scope.resolve(condition["Values"]))
    if kind not in _COMPARISONS:
        raise ValueError(f"The local cloud does not know the condition {kind}.")
    return _COMPARISONS[kind](
        scope.resolve(condition["LeftValue"]), scope.resolve(condition["RightValue"])
    )


def parameters_of(definition: dict[str, Any], given: dict[str, str]) -> dict[str, Any]:
    """An execution's parameters in their declared types, defaults included.

    Raises:
        ValueError: A parameter is not declared, is missing, or is not of its type.

    """
    declared = {item["Name"]: item for item in definition.get("Parameters", [])}
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise ValueError(f"Unknown parameters in the request: {', '.join(unknown)}.")
    missing = sorted(
        name for name, item in declared.items() if name not in given and "DefaultValue" not in item
    )
    if missing:
        raise ValueError(f"Missing parameters: {', '.join(missing)}.")
    return {
        name: typed(given.get(name, item.get("DefaultValue")), item["Type"])
        for name, item in declared.items()
    }


def typed(value: Any, kind: str) -> Any:
    """A parameter or output in its declared type (Integer, Float, Boolean, String).

    Raises:
        ValueError: The value is not of that type.

    """
    if kind == "Integer":
        return int(value)
    if kind == "Float":
        return float(value)
    if kind == "Boolean":
        return value if isinstance(value, bool) else str(value).lower() == "true"
    return str(value)
