"""Patch of ministack's CloudFormation: an interface endpoint has DNS entries, as on AWS.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-ec2-vpcendpoint.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ministack.services.cloudformation import provisioners

ZONE = "Z00000000000000000000"
"""Id of the hosted zone that a service's endpoints have their names in."""


def give_names() -> None:
    """Let ``DnsEntries`` have the endpoint's regional name."""
    original = provisioners._ec2_vpc_endpoint_attributes
    provisioners._ec2_vpc_endpoint_attributes = _with_names(original)


def _with_names(original: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def attributes(endpoint: dict[str, Any]) -> dict[str, Any]:
        service = ".".join(reversed(endpoint["ServiceName"].split(".")[2:]))
        name = f"{endpoint['VpcEndpointId']}.{service}.vpce.amazonaws.com"
        return {**original(endpoint), "DnsEntries": [f"{ZONE}:{name}"]}

    return attributes
