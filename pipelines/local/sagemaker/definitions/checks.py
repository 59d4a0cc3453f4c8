"""What is wrong with a pipeline definition, found before anything runs."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pipelines.local.sagemaker.definitions.conditions import TYPES
from pipelines.local.sagemaker.definitions.graph import (
    NAME,
    PROPERTY_FILE,
    STEP,
    Node,
    Step,
    circle,
    graph_of,
    references,
)

STEP_LIMIT = 200
"""Steps of a pipeline, each of which may have a thread of its own here."""
PARAMETER_LIMIT = 200
DEPTH_LIMIT = 60
"""Nested lists and objects of a definition: what reads it calls itself for each."""
EXECUTION = (
    "CurrentDateTime",
    "PipelineArn",
    "PipelineExecutionArn",
    "PipelineExecutionId",
    "PipelineName",
    "ProcessingJobName",
    "StartDateTime",
    "TrainingJobName",
)
KINDS = ("Boolean", "Float", "Integer", "String")


def parsed(text: str) -> dict[str, Any]:
    """A definition from its JSON, checked.

    Raises:
        ValueError: It is not one; the message says what is wrong, and where.

    """
    try:
        definition = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The pipeline definition is not JSON: {error}.") from error
    if _is_deep(definition):
        raise ValueError(f"The pipeline definition is nested more than {DEPTH_LIMIT} deep.")
    try:
        fault = next(_faults(definition), "")
    except (AttributeError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"The pipeline definition is not of SageMaker's form ({reason})."
        ) from error
    if fault:
        raise ValueError(fault)
    return dict(definition)


def _is_deep(value: Any) -> bool:
    """Whether a value is nested deeper than the limit."""
    level = [value]
    for _ in range(DEPTH_LIMIT):
        inner = [item for item in level if isinstance(item, list | dict)]
        level = [v for item in inner for v in (item.values() if isinstance(item, dict) else item)]
    return bool(level)


def _faults(definition: dict[str, Any]) -> Iterator[str]:
    """What is wrong, the first of it first: later ones may raise when an earlier one holds."""
    if not isinstance(definition, dict) or not isinstance(definition.get("Steps"), list):
        yield "The pipeline definition has no list of Steps."
    parameters = definition.get("Parameters", [])
    yield from _faults_of_parameters(parameters)
    steps = list(_all(definition["Steps"]))
    yield from _faults_of_names("step", [step["Name"] for step in steps], STEP_LIMIT)
    for step in steps:
        yield from _faults_of_step(step)
    graph = graph_of(definition["Steps"])
    declared = [parameter["Name"] for parameter in parameters]
    for node in graph.values():
        yield from _faults_of_references(node, graph, declared)
    if waiting := circle(graph):
        yield f"These steps wait for each other: {', '.join(waiting)}."


def _all(steps: list[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        if step["Type"] == "Condition":
            arguments = step["Arguments"]
            yield from _all([*arguments.get("IfSteps", []), *arguments.get("ElseSteps", [])])


def _faults_of_parameters(parameters: list[dict[str, Any]]) -> Iterator[str]:
    names = [parameter["Name"] for parameter in parameters]
    yield from _faults_of_names("parameter", names, PARAMETER_LIMIT)
    for parameter in parameters:
        kind = parameter.get("Type", "String")
        if kind not in KINDS:
            yield f"The parameter {parameter['Name']} has the type {kind}: not {_choice(KINDS)}."


def _faults_of_names(what: str, names: list[str], limit: int) -> Iterator[str]:
    if len(names) > limit:
        yield f"The pipeline has {len(names)} {what}s; the limit is {limit}."
    for name, count in Counter(names).items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            yield (
                f"The {what} name {str(name)[:80]!r} is not one to 64 letters, digits, hyphens "
                "and underscores."
            )
        if count > 1:
            yield f"Two {what}s have the name {name}."


def _faults_of_step(step: Step) -> Iterator[str]:
    if not isinstance(step.get("Arguments", {}), dict):
        yield f"The Arguments of the step {step['Name']} are not an object."
    if step["Type"] == "Condition":
        for condition in _conditions(step["Arguments"]["Conditions"]):
            if condition["Type"] not in TYPES:
                yield (
                    f"The step {step['Name']} has a condition {condition['Type']}: not "
                    f"{_choice(TYPES)}."
                )


def _conditions(conditions: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for condition in conditions:
        yield condition
        yield from _conditions(condition.get("Conditions", []))
        nested = condition.get("Condition", condition.get("Expression"))
        yield from _conditions([nested] if nested else [])


def _faults_of_references(
    node: Node, graph: dict[str, Node], parameters: list[str]
) -> Iterator[str]:
    step, where = node.step, f"The step {node.step['Name']}"
    for name in step.get("DependsOn", []):
        if name not in graph:
            yield f"{where} depends on {name}, which is no step.{_near(name, graph)}"
        elif graph[name].step["Type"] == "Fail":
            yield f"{where} depends on {name}, a Fail step, after which none runs."
    own = (
        {"Conditions": step["Arguments"].get("Conditions")} if step["Type"] == "Condition" else step
    )
    for reference in references(own):
        kind, _, rest = reference.partition(".")
        found = STEP.match(reference)
        to = f"{where} refers to {reference[:200]}"
        if kind == "Parameters" and rest not in parameters:
            yield f"{to}, which the pipeline does not declare.{_near(rest, parameters)}"
        elif kind == "Execution" and rest not in EXECUTION:
            yield f"{to}, which does not exist.{_near(rest, EXECUTION)}"
        elif kind == "Steps" and (found is None or found.group(1) not in graph):
            name = found.group(1) if found else rest
            yield f"{to}, but there is no such step.{_near(name, graph)}"
        elif kind not in ("Parameters", "Execution", "Steps"):
            yield f"{to}, which is no parameter, execution value or step."
        elif (file := PROPERTY_FILE.fullmatch(reference)) and not _declares(graph, *file.groups()):
            yield f"{to}, but that step declares no such property file."


def _declares(graph: dict[str, Node], step: str, file: str) -> bool:
    declared = graph[step].step.get("PropertyFiles", [])
    return any(item["PropertyFileName"] == file for item in declared)


def _near(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), 1)
    return f" The nearest name is {close[0]}." if close else ""


def _choice(names: Iterable[str]) -> str:
    return " or ".join([", ".join(list(names)[:-1]), list(names)[-1]])


def not_runnable(definition: dict[str, Any], reason: Callable[[Step], str]) -> str:
    """Why a definition cannot be run here: the first step that has a reason. Empty: it can be."""
    for step in _all(definition["Steps"]):
        if why := reason(step):
            return f"The local cloud cannot run the step {step['Name']} ({step['Type']}): {why}"
    return ""
