"""A template's resources as CloudFormation would have them: functions and references resolved."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from pipelines.aws.rehearsal.kinds import KINDS, Kind
from pipelines.errors import DeployError

_NOTHING = object()
"""What ``AWS::NoValue`` stands for."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a deployment would be made."""

    account: str
    region: str
    zones: tuple[str, ...]
    """The account's availability zones, in the order that ``Fn::GetAZs`` gives them."""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One resource of a stack that is to be created."""

    stack: str
    logical: str
    """Its id in the template."""
    type: str
    properties: Mapping[str, Any]
    """Resolved."""
    template: Mapping[str, Any]
    """As the template has it."""
    name: str
    """Its own name; empty where AWS makes one up."""

    @property
    def where(self) -> str:
        """For a message."""
        return f"{self.stack}: {self.logical}"


class Values:
    """One template's values. Raises DeployError for a reference that leads nowhere."""

    def __init__(
        self,
        stack: str,
        template: Mapping[str, Any],
        parameters: Mapping[str, str],
        place: Place,
        exports: Mapping[str, Any],
        *,
        seed: str = "",
    ) -> None:
        self._seed = seed
        self._stack = stack
        self._template = template
        self._place = place
        self._exports = exports
        self._known = {
            "AWS::AccountId": place.account,
            "AWS::Region": place.region,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::StackName": stack,
            "AWS::NoValue": _NOTHING,
            **{
                name: str(parameter.get("Default", ""))
                for name, parameter in template.get("Parameters", {}).items()
            },
            **parameters,
        }

    def resources(self) -> Iterator[Resource]:
        """Those whose condition holds, each after the ones that it refers to."""
        wanted = {
            name: resource
            for name, resource in self._template["Resources"].items()
            if "Condition" not in resource or self._condition(resource["Condition"])
        }
        order = TopologicalSorter(
            {name: _mentioned(resource) & set(wanted) for name, resource in wanted.items()}
        )
        for name in order.static_order():
            resource = wanted[name]
            yield Resource(
                stack=self._stack,
                logical=name,
                type=resource["Type"],
                properties=self.resolve(resource.get("Properties", {})),
                template=resource,
                name=self._name(resource),
            )

    def exported(self) -> dict[str, Any]:
        """The outputs that other stacks import, by the export's name."""
        return {
            self.resolve(output["Export"]["Name"]): self.resolve(output["Value"])
            for output in self._template.get("Outputs", {}).values()
            if "Export" in output
        }

    def resolve(self, value: Any) -> Any:
        """A value without functions."""
        if isinstance(value, list):
            resolved = [self.resolve(item) for item in value]
            return [item for item in resolved if item is not _NOTHING]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (key, argument), *_ = value.items()
            if key == "Ref" or key.startswith("Fn::"):
                return self._function(key, argument)
        resolved_items = {key: self.resolve(item) for key, item in value.items()}
        return {key: item for key, item in resolved_items.items() if item is not _NOTHING}

    def _function(self, function: str, argument: Any) -> Any:
        if function == "Ref":
            return self._reference(argument)
        if function == "Fn::GetAtt":
            return self._attribute(*argument)
        if function == "Fn::If":
            condition, then, otherwise = argument
            return self.resolve(then if self._condition(condition) else otherwise)
        if function == "Fn::GetAZs":
            return list(self._place.zones)
        if function == "Fn::ImportValue":
            name = self.resolve(argument)
            if name not in self._exports:
                raise DeployError(f"Stack {self._stack} imports {name}, which no stack exports.")
            return self._exports[name]
        if function == "Fn::Join":
            separator, parts = argument
            return separator.join(str(part) for part in self.resolve(parts))
        if function == "Fn::Split":
            separator, text = argument
            return self.resolve(text).split(separator)
        if function == "Fn::Select":
            index, items = argument
            return self.resolve(items)[int(index)]
        raise DeployError(f"The rehearsal does not know {function} of stack {self._stack}.")

    def _condition(self, name: str) -> bool:
        return self._holds(self._template["Conditions"][name])

    def _holds(self, condition: Mapping[str, Any]) -> bool:
        (function, argument), *_ = condition.items()
        if function == "Condition":
            return self._condition(argument)
        if function == "Fn::Equals":
            left, right = argument
            return bool(self.resolve(left) == self.resolve(right))
        if function == "Fn::Not":
            return not self._holds(argument[0])
        if function in ("Fn::And", "Fn::Or"):
            holds = [self._holds(item) for item in argument]
            return all(holds) if function == "Fn::And" else any(holds)
        raise DeployError(f"The rehearsal does not know {function} of stack {self._stack}.")

    def _reference(self, name: str) -> Any:
        if name in self._known:
            return self._known[name]
        return self._filled(name, self._kind(name).identifier)

    def _attribute(self, name: str, attribute: str) -> Any:
        kind = self._kind(name)
        if attribute == "DnsEntries":
            service = f"vpce.{self._place.region}.amazonaws.com"
            return [f"Z{_digest(name)}:{_digest(name)}.{service}"]
        if attribute in ("Arn", "TopicArn", "MlflowAppArn") and kind.arn:
            return self._filled(name, kind.arn)
        if attribute.endswith("Name"):
            return self._name(self._template["Resources"][name])
        return self._filled(name, kind.identifier)

    def _kind(self, name: str) -> Kind:
        resource = self._template["Resources"].get(name)
        if resource is None:
            raise DeployError(f"Stack {self._stack} refers to {name}, which it does not have.")
        return kind_of(resource["Type"])

    def _filled(self, name: str, pattern: str) -> str:
        own = self._name(self._template["Resources"][name]) or f"{self._stack}-{name}"
        return fill(pattern, name=own, seed=f"{self._seed}/{self._stack}/{name}", place=self._place)

    def _name(self, resource: Mapping[str, Any]) -> str:
        key = kind_of(resource["Type"]).name
        return str(self.resolve(resource.get("Properties", {}).get(key, ""))) if key else ""


def kind_of(name: str) -> Kind:
    """A resource type. Raises DeployError for one that the rehearsal does not know."""
    if name not in KINDS:
        raise DeployError(
            f"The rehearsal does not know the resource type {name}: "
            "add it to pipelines/aws/rehearsal/kinds.py."
        )
    return KINDS[name]


def fill(pattern: str, *, name: str, seed: str, place: Place) -> str:
    """An identifier or ARN. What AWS would make up comes from ``seed``."""
    return pattern.format(
        name=name,
        hash=_digest(seed),
        uuid=uuid.uuid5(uuid.NAMESPACE_URL, seed),
        account=place.account,
        region=place.region,
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:17]


def _mentioned(value: Any) -> set[str]:
    """Names that a value refers to."""
    if isinstance(value, list):
        return set().union(*map(_mentioned, value))
    if not isinstance(value, dict):
        return set()
    found = set().union(*map(_mentioned, value.values()))
    if "Ref" in value:
        found.add(value["Ref"])
    if "Fn::GetAtt" in value:
        found.add(value["Fn::GetAtt"][0])
    after = value.get("DependsOn", [])
    return found | set([after] if isinstance(after, str) else after)
