"""Conditions of a pipeline definition: comparisons, In, Not, Or.

The schema and the SDK name some fields differently; both are read.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from pipelines.local.sagemaker.definitions.values import Scope

_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "Equals": operator.eq,
    "NotEquals": operator.ne,
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
}
TYPES = (*_COMPARISONS, "In", "NotIn", "Not", "Or")


def holds(condition: dict[str, Any], scope: Scope) -> bool:
    """Evaluate a condition.

    Raises:
        ValueError: Its type is unknown, its values cannot be compared, or a reference in it leads
            nowhere.

    """
    kind = condition["Type"]
    if kind == "Not":
        return not holds(_either(condition, "Condition", "Expression"), scope)
    if kind == "Or":
        return any(holds(item, scope) for item in condition["Conditions"])
    if kind in ("In", "NotIn"):
        value = scope.resolve(_either(condition, "QueryValue", "Value"))
        among = value in scope.resolve(_either(condition, "Values", "In"))
        return bool(among) is (kind == "In")
    if kind not in _COMPARISONS:
        raise ValueError(f"The local cloud does not know the condition {kind}.")
    left, right = scope.resolve(condition["LeftValue"]), scope.resolve(condition["RightValue"])
    try:
        return bool(_COMPARISONS[kind](left, right))
    except TypeError as error:
        raise ValueError(f"{left!r} and {right!r} cannot be compared by {kind}.") from error


def _either(condition: dict[str, Any], sdk: str, schema: str) -> Any:
    return condition[sdk if sdk in condition else schema]
