"""Sizes and names that service models do not state."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from pipelines.aws.rehearsal.rehearsed import Rehearsed
from pipelines.aws.rehearsal.requests import refusals

IOT_POLICY = 2048
"""Characters of an IoT policy without white space."""
ROLE_POLICIES, TRUST_POLICY = 10_240, 2048
"""Characters without white space of a role's inline policies together, and of its trust policy."""
TEMPLATE_BYTES, TEMPLATE_RESOURCES = 2**20, 500
FUNCTION_BYTES, ENVIRONMENT_BYTES = 250 * 2**20, 4096
"""Of a function's unzipped code, and of its environment variables."""
ENDPOINTS = 50
"""Interface endpoints of a VPC."""
FILTERS = 100
"""Metric filters of a log group."""
NAMES = {
    "AWS::S3::Bucket": re.compile(r"(?!xn--|sthree-)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
    "AWS::SQS::Queue": re.compile(r"[A-Za-z0-9_-]{1,80}"),
    "AWS::IoT::TopicRule": re.compile(r"[A-Za-z0-9_]{1,128}"),
}
"""Names of types whose service models have no pattern, or a wider one."""


def service_models(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """Requests that botocore's models refuse: types, patterns, lengths, enumerations."""
    for resource in seen.resources:
        for refusal in refusals(resource, seen.place):
            yield resource.where, refusal


def names(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """Names that the service does not take."""
    for resource in seen.of_type(*NAMES):
        if resource.name and not NAMES[resource.type].fullmatch(resource.name):
            yield resource.where, f"{resource.type} does not take the name {resource.name!r}"


def iot_policies(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """IoT policies that are too long."""
    for resource in seen.of_type("AWS::IoT::Policy"):
        size = _size(resource.properties["PolicyDocument"])
        if size > IOT_POLICY:
            yield (
                resource.where,
                f"the policy has {size} characters; AWS IoT takes {IOT_POLICY}: collapse its "
                "resources by wildcards, or split it",
            )


def role_policies(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """Roles whose policies are too long."""
    for resource in seen.of_type("AWS::IAM::Role"):
        inline = sum(_size(p["PolicyDocument"]) for p in resource.properties.get("Policies", []))
        trust = _size(resource.properties["AssumeRolePolicyDocument"])
        if inline > ROLE_POLICIES or trust > TRUST_POLICY:
            yield (
                resource.where,
                f"inline policies of {inline} and a trust policy of {trust} characters; IAM takes "
                f"{ROLE_POLICIES} and {TRUST_POLICY}",
            )


def templates(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """Templates that CloudFormation does not take."""
    for stack, size in seen.template_bytes.items():
        count = sum(resource.stack == stack for resource in seen.resources)
        if size > TEMPLATE_BYTES or count > TEMPLATE_RESOURCES:
            yield (
                stack,
                f"a template of {size} bytes and {count} resources; CloudFormation takes "
                f"{TEMPLATE_BYTES} and {TEMPLATE_RESOURCES}",
            )


def functions(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """Functions that are too large."""
    if seen.bundle is not None and seen.bundle.unzipped > FUNCTION_BYTES:
        yield (
            "functions.zip",
            f"{seen.bundle.unzipped} bytes unzipped; Lambda takes {FUNCTION_BYTES}",
        )
    for resource in seen.of_type("AWS::Lambda::Function"):
        size = _size(resource.properties.get("Environment", {}).get("Variables", {}))
        if size > ENVIRONMENT_BYTES:
            yield (
                resource.where,
                f"an environment of {size} bytes; Lambda takes {ENVIRONMENT_BYTES}",
            )


def counts(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """More of something than a new account may have."""
    endpoints = [
        r for r in seen.of_type("AWS::EC2::VPCEndpoint") if "VpcEndpointType" in r.properties
    ]
    if len(endpoints) > ENDPOINTS:
        yield endpoints[0].stack, f"{len(endpoints)} interface endpoints; a VPC has {ENDPOINTS}"
    groups = [r.properties["LogGroupName"] for r in seen.of_type("AWS::Logs::MetricFilter")]
    for group in sorted(set(groups)):
        if groups.count(group) > FILTERS:
            yield group, f"{groups.count(group)} metric filters; a log group has {FILTERS}"


def _size(document: Any) -> int:
    """Characters without white space outside texts, which ours have none of."""
    return len(json.dumps(document, separators=(",", ":")))
