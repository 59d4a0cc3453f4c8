"""Values that are known only when a pipeline runs: parameters, other steps' properties, joins.

A variable is an object of SageMaker's Python SDK, which has its JSON in ``expr``, or that JSON:
``{"Get": "Parameters.Rounds"}``.
https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-properties.html
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_FUNCTIONS = ("Get", "Std:Join", "Std:JsonGet")

Join = Callable[[list[Any]], Any]
"""Makes one text of texts and variables when the pipeline runs."""


def is_variable(value: object) -> bool:
    """Whether a value is known only when the pipeline runs."""
    if isinstance(value, Mapping):
        return len(value) == 1 and next(iter(value)) in _FUNCTIONS
    return hasattr(value, "expr")


def plain(value: Any) -> Any:
    """A value as a pipeline's definition has it: SDK objects are replaced by their JSON."""
    if hasattr(value, "expr"):
        return value.expr
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def plain_join(parts: list[Any]) -> dict[str, Any]:
    """A join as a pipeline's definition has it."""
    return {"Std:Join": {"On": "", "Values": [plain(part) for part in parts]}}


def json_object(values: Mapping[str, Any], texts: Sequence[str], join: Join) -> Any:
    """Values as a JSON object: a text, or a join where some of them are variables.

    ``texts``: the keys of variables that stand for texts, which JSON puts in quotation marks. The
    variable's own text must then contain none.
    """
    fixed = {key: value for key, value in values.items() if not is_variable(value)}
    written = json.dumps(fixed, separators=(",", ":"))
    variables = {key: value for key, value in values.items() if is_variable(value)}
    if not variables:
        return written
    parts: list[Any] = []
    before = written[:-1] + ("," if fixed else "")
    for key, value in variables.items():
        quote = '"' if key in texts else ""
        parts += [f"{before}{json.dumps(key)}:{quote}", value]
        before = f"{quote},"
    return join([*parts, before.removesuffix(",") + "}"])


def is_text(variable: object) -> bool:
    """Whether a variable is a pipeline parameter of type String."""
    kind = getattr(variable, "parameter_type", None)
    return str(getattr(kind, "value", kind)) == "String"
