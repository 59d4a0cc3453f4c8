"""The API request that creates a resource, held against botocore's model of the service."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.model import OperationModel, Shape
from botocore.validate import ParamValidator

from pipelines.aws.rehearsal.patterns import operation_model, violations_of
from pipelines.aws.rehearsal.values import Place, Resource, fill, kind_of

_PARTS = {
    "AWS::IAM::Role": ("Policies", ("iam", "PutRolePolicy"), "RoleName"),
    "AWS::Events::Rule": ("Targets", ("events", "PutTargets"), "Rule"),
}
"""Properties that further calls carry, by type: the property, the call, where the name goes."""


def refusals(resource: Resource, place: Place) -> Iterator[str]:
    """What the service's model says against the calls that create a resource."""
    kind = kind_of(resource.type)
    if kind.call is None:
        return
    model = operation_model(*kind.call)
    given = {
        key: fill(value, name=resource.name, seed=resource.where, place=place)
        for key, value in kind.given.items()
    }
    properties = {kind.aliases.get(key, key): value for key, value in resource.properties.items()}
    yield from _refused(model, {**_shaped(properties, model.input_shape, kind.aliases), **given})
    if resource.type in _PARTS:
        key, call, owner = _PARTS[resource.type]
        for part in resource.properties.get(key, []):
            listed = {key: [part]} if call[1] == "PutTargets" else part
            request = {owner: resource.name, **listed}
            shape = operation_model(*call).input_shape
            yield from _refused(operation_model(*call), _shaped(request, shape, {}))


def _refused(model: OperationModel, request: dict[str, Any]) -> Iterator[str]:
    report = ParamValidator().validate(request, model.input_shape)
    said = report.generate_report().splitlines() if report.has_errors() else []
    for line in [*said, *violations_of(model, request)]:
        yield f"{model.service_model.service_name}:{model.name} {line}"


def _shaped(value: Any, shape: Shape, aliases: Mapping[str, str]) -> Any:
    """A property as the API takes it. Properties that the call does not have are left out: other
    calls carry them.
    """
    if shape.type_name == "structure" and isinstance(value, dict):
        # KMS says TagKey and TagValue where all others say Key and Value.
        members = {name.lower().removeprefix("tag"): name for name in shape.members}
        members |= {name.lower(): name for name in shape.members}
        found = {
            members[key.lower()]: item for key, item in value.items() if key.lower() in members
        }
        return {name: _shaped(item, shape.members[name], aliases) for name, item in found.items()}
    if shape.type_name == "list" and isinstance(value, list):
        return [_shaped(item, shape.member, aliases) for item in value]
    if shape.type_name == "list" and isinstance(value, dict) and "Items" not in value:
        # Tags of some types are a map in CloudFormation.
        return [_shaped({"Key": k, "Value": v}, shape.member, aliases) for k, v in value.items()]
    if shape.type_name == "map":
        pairs = {item["Key"]: item["Value"] for item in value} if isinstance(value, list) else value
        return {key: _shaped(item, shape.value, aliases) for key, item in pairs.items()}
    return _scalar(value, shape.type_name)


def _scalar(value: Any, kind: str) -> Any:
    if kind == "string":
        if isinstance(value, bool):
            return str(value).lower()
        return json.dumps(value) if isinstance(value, (dict, list)) else str(value)
    if kind in ("integer", "long") and isinstance(value, (str, float)):
        return int(value)
    if kind in ("float", "double") and isinstance(value, (str, int)):
        return float(value)
    if kind == "boolean" and isinstance(value, str):
        return value == "true"
    return value
