"""The graph of a pipeline's steps: which must have ended before another can begin."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

NAME = re.compile(r"[A-Za-z0-9\-_]{1,64}")
"""Names of steps and parameters, as the definition's schema has them."""
STEP = re.compile(r"Steps\.([A-Za-z0-9\-_]{1,64})(?=[.\[]|$)")
PROPERTY_FILE = re.compile(r"Steps\.([A-Za-z0-9\-_]{1,64})\.PropertyFiles\.([A-Za-z0-9\-_.]{1,64})")

Step = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Node:
    """A step in its graph."""

    step: Step
    needs: frozenset[str]
    """Steps that must have ended: those in DependsOn, those that it refers to, and the condition
    that chooses it.
    """
    condition: str = ""
    """The Condition step that this belongs to; empty: none."""
    branch: bool = True
    """The outcome of that condition for which this runs."""


def graph_of(steps: list[Step]) -> dict[str, Node]:
    """All steps by name, those of branches included, in the definition's order."""
    return {node.step["Name"]: node for node in _nodes(steps, "", True)}


def _nodes(steps: list[Step], condition: str, branch: bool) -> Iterator[Node]:
    for step in steps:
        own = {key: value for key, value in step.items() if key != "DependsOn"}
        arguments = step.get("Arguments", {})
        is_condition = step["Type"] == "Condition"
        if is_condition:
            own["Arguments"] = {"Conditions": arguments.get("Conditions", [])}
        needs = {match.group(1) for match in map(STEP.match, references(own)) if match}
        needs |= set(step.get("DependsOn", [])) | ({condition} if condition else set())
        yield Node(step=step, needs=frozenset(needs), condition=condition, branch=branch)
        if is_condition:
            yield from _nodes(arguments.get("IfSteps", []), step["Name"], True)
            yield from _nodes(arguments.get("ElseSteps", []), step["Name"], False)


def references(value: Any) -> Iterator[str]:
    """Every ``Get`` in a JSON value."""
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        if set(value) == {"Get"} and isinstance(value["Get"], str):
            yield value["Get"]
        else:
            for item in value.values():
                yield from references(item)


def circle(graph: dict[str, Node]) -> list[str]:
    """Steps that wait for each other; empty: there are none."""
    left = dict(graph)
    while ready := [name for name, node in left.items() if not node.needs & set(left)]:
        for name in ready:
            del left[name]
    return sorted(left)
