"""Names written out in a template, for what an earlier deployment may have left.

CloudFormation takes over an existing resource (``ImportExistingResources``) only where the template
has its name as it is, and creates one, which then fails, where the name is made of parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = {
    "AWS::DynamoDB::Table": "TableName",
    "AWS::ECR::Repository": "RepositoryName",
    "AWS::IoT::ThingGroup": "ThingGroupName",
    "AWS::IoT::ThingType": "ThingTypeName",
    "AWS::KMS::Alias": "AliasName",
    "AWS::S3::Bucket": "BucketName",
}
"""The property with the name, by type, of all types that outlive their stack and have one."""


def with_literal_names(template: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """A template with the names of retained resources written out. ``known``: values of parameters
    and pseudo-parameters; a name that needs another stays as it is.
    """
    defaults = {
        name: str(parameter["Default"])
        for name, parameter in template.get("Parameters", {}).items()
        if "Default" in parameter
    }
    resources = {
        name: _named(resource, {**defaults, **known})
        for name, resource in template["Resources"].items()
    }
    return {**template, "Resources": resources}


def _named(resource: Mapping[str, Any], known: Mapping[str, str]) -> Mapping[str, Any]:
    key = NAMES.get(resource["Type"], "")
    if not resource.get("DeletionPolicy", "").startswith("Retain") or not key:
        return resource
    name = _text(resource["Properties"][key], known)
    if name is None:
        return resource
    return {**resource, "Properties": {**resource["Properties"], key: name}}


def _text(value: Any, known: Mapping[str, str]) -> str | None:
    """A text, a ``Ref``, or a ``Fn::Join`` of them; None where it refers to something unknown."""
    if isinstance(value, str):
        return value
    if "Ref" in value:
        return known.get(value["Ref"])
    if "Fn::Join" in value:
        separator, parts = value["Fn::Join"]
        texts = [_text(part, known) for part in parts]
        if None not in texts:
            return str(separator).join(text for text in texts if text is not None)
    return None
