"""Values in a pipeline definition: parameters and references (``Get``, ``Std:Join``,
``Std:JsonGet``).

https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-properties.html
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pipelines.local.sagemaker.definitions.graph import PROPERTY_FILE, STEP
from pipelines.local.sagemaker.definitions.paths import value_at

JSON_LIMIT = 2 * 1024 * 1024
"""Bytes of a file that ``Std:JsonGet`` reads; SageMaker reads property files of up to 2 MB:
https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-propertyfile.html
"""


def _no_files(uri: str, _limit: int) -> bytes:
    raise ValueError(f"No file can be read here: {uri}.")


class Scope:
    """What an execution's references refer to: its parameters and the outputs of ended steps."""

    def __init__(
        self,
        parameters: dict[str, Any],
        arn: str,
        pipeline: str,
        *,
        started_at: float | None = None,
        read: Callable[[str, int], bytes] = _no_files,
    ) -> None:
        """
        Args:
            parameters: By name, in their types.
            arn: The execution's ARN.
            pipeline: The pipeline's name.
            started_at: When the execution began, in seconds since the epoch; None: now.
            read: Reads an S3 object by its URI, at most so many bytes of it.

        """
        self.parameters = parameters
        self.outputs: dict[str, dict[str, Any]] = {}
        """By step name, then by property."""
        self.property_files: dict[str, str] = {}
        """S3 URIs by ``STEP.NAME``."""
        self._read = read
        self._execution = {
            "PipelineExecutionArn": arn,
            "PipelineExecutionId": arn.rsplit("/", 1)[1],
            "PipelineName": pipeline,
            "PipelineArn": arn.split("/execution/")[0],
            "StartDateTime": _iso(time.time() if started_at is None else started_at),
        }

    def resolve(self, value: Any, names: dict[str, str] | None = None) -> Any:
        """Replace every reference in a JSON value. ``names``: further ``Execution`` values, such as
        the step's ``TrainingJobName``.

        Raises:
            ValueError: A reference leads nowhere, or a file cannot be read.

        """
        if isinstance(value, list):
            return [self.resolve(item, names) for item in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"Get"}:
            return self._get(value["Get"], names or {})
        if set(value) == {"Std:Join"}:
            join = value["Std:Join"]
            items = [self.resolve(item, names) for item in join["Values"]]
            return join.get("On", "").join(text(item) for item in items)
        if set(value) == {"Std:JsonGet"}:
            return self._json_get(value["Std:JsonGet"])
        return {key: self.resolve(item, names) for key, item in value.items()}

    def _get(self, reference: str, names: dict[str, str]) -> Any:
        kind, _, rest = reference.partition(".")
        if kind == "Parameters" and rest in self.parameters:
            return self.parameters[rest]
        if kind == "Execution":
            if rest == "CurrentDateTime":
                return _iso(time.time())
            found = {**self._execution, **names}.get(rest)
            if found is not None:
                return found
        step = STEP.match(reference)
        if step is not None and step.group(1) in self.outputs:
            try:
                return value_at(self.outputs[step.group(1)], reference[step.end() :])
            except (LookupError, TypeError):
                pass
        raise ValueError(f"The pipeline refers to {reference}, which does not exist.")

    def _json_get(self, given: dict[str, Any]) -> Any:
        """A value from a JSON file in S3: a step's property file, or any object by its URI."""
        if "PropertyFile" in given:
            reference = given["PropertyFile"]["Get"]
            named = PROPERTY_FILE.fullmatch(reference)
            uri = self.property_files.get(".".join(named.groups())) if named else None
            if uri is None:
                raise ValueError(f"The pipeline refers to {reference}, which does not exist.")
        else:
            uri = str(self.resolve(given["S3Uri"]))
        try:
            document = json.loads(self._read(uri, JSON_LIMIT))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{uri} cannot be read as JSON: {error}.") from error
        try:
            return value_at(document, given["Path"])
        except (LookupError, TypeError) as error:
            raise ValueError(f"{uri} has nothing at {given['Path']}.") from error


def text(value: Any) -> str:
    """A value as ``Std:Join`` writes it: JSON's true and false, not Python's."""
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _iso(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parameters_of(definition: dict[str, Any], given: dict[str, str]) -> dict[str, Any]:
    """An execution's parameters in their declared types, defaults included.

    Raises:
        ValueError: A parameter is not declared, is missing, is not of its type, or is none of the
            values that its declaration allows.

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
        name: _checked(item, given.get(name, item.get("DefaultValue")))
        for name, item in declared.items()
    }


def _checked(declared: dict[str, Any], given: Any) -> Any:
    name, kind = declared["Name"], declared.get("Type", "String")
    try:
        value = typed(given, kind)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The parameter {name} is not of type {kind}: {error}.") from error
    allowed = declared.get("EnumValues")
    if allowed and value not in allowed:
        raise ValueError(f"The parameter {name} must be one of {', '.join(map(str, allowed))}.")
    return value


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
