"""Requests held against what botocore's models say of them: patterns, lengths, enums, numbers.

boto3 itself checks shapes only, and so do emulators: AWS would be the first to refuse the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import botocore.session
import regex
from botocore.model import OperationModel, ServiceModel, Shape


def violations(service: str, operation: str, request: dict[str, Any]) -> list[str]:
    """What is wrong with a request's values, by their paths."""
    return list(_wrong(operation_model(service, operation).input_shape, request, ""))


def violations_of(model: OperationModel, request: dict[str, Any]) -> list[str]:
    """The same for the operation of a client."""
    return list(_wrong(model.input_shape, request, "")) if model.input_shape else []


@cache
def session() -> botocore.session.Session:
    """One session, which reads each service's model once."""
    return botocore.session.get_session()


@cache
def operation_model(service: str, operation: str) -> OperationModel:
    """The model of a call."""
    return _model(service).operation_model(operation)


@cache
def _model(service: str) -> ServiceModel:
    return session().get_service_model(service)


def _wrong(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if value is None:
        return
    limits = shape.metadata
    if shape.type_name == "structure":
        for name, item in value.items():
            if name in shape.members:
                yield from _wrong(shape.members[name], item, f"{path}.{name}")
    elif shape.type_name == "list":
        yield from _outside(limits, len(value), path)
        for index, item in enumerate(value):
            yield from _wrong(shape.member, item, f"{path}[{index}]")
    elif shape.type_name == "map":
        yield from _outside(limits, len(value), path)
        for key, item in value.items():
            yield from _wrong(shape.key, key, f"{path}.{key} (key)")
            yield from _wrong(shape.value, item, f"{path}.{key}")
    elif shape.type_name == "string":
        yield from _outside(limits, len(value), path)
        if shape.enum and value not in shape.enum:
            yield f"{path}: {value!r} is none of {shape.enum}"
        pattern = _pattern(limits.get("pattern", ""))
        if pattern is not None and not pattern.fullmatch(value):
            yield f"{path}: {value!r} does not match {limits['pattern']}"
    elif shape.type_name in ("integer", "long", "float", "double"):
        yield from _outside(limits, value, path)


def _outside(limits: dict[str, Any], size: float, path: str) -> Iterator[str]:
    if not limits.get("min", size) <= size <= limits.get("max", size):
        yield f"{path}: {size} is not within {limits.get('min', '')}..{limits.get('max', '')}"


@cache
def _pattern(text: str) -> Any:
    """Patterns are Java's. Some models end them with a length after ``$``, which can match nothing;
    the length stands in ``min`` and ``max`` as well.
    """
    if not text:
        return None
    return regex.compile(regex.sub(r"\$\{\d+,\d+\}$", "", text).removeprefix("^").removesuffix("$"))
