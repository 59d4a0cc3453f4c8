"""Values and conditions in a pipeline definition: ``Get``, ``Std:Join``, comparisons.

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
    """What references of one execution refer to: parameters, outputs of finished steps."""

    def __init__(self, parameters: dict[str, Any], arn: str, pipeline: str) -> None:
        self.parameters = parameters
        self.outputs: dict[str, dict[str, Any]] = {}
        self._execution = {
            "PipelineExecutionArn": arn,
            "PipelineExecutionId": arn.rsplit("/", 1)[1],
            "PipelineName": pipeline,
        }

    def resolve(self, value: Any) -> Any:
        """Replace every reference in a JSON value; raises ValueError for one that leads nowhere."""
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
    """Evaluate one condition; raises ValueError for a kind it does not know."""
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
