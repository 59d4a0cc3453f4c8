"""Regions, zones, endpoints and their names."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.aws.endpoints import NO_PRIVATE_DNS, service_name
from pipelines.aws.rehearsal.kinds import KINDS
from pipelines.aws.rehearsal.patterns import session
from pipelines.aws.rehearsal.rehearsed import Rehearsed
from pipelines.aws.rehearsal.values import Resource

_EVERYWHERE = ("iam", "budgets", "route53")
"""Services that have no region."""
GREENGRASS = "greengrassv2"


def regions(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """Services that the region does not have, as botocore lists them."""
    calls = [KINDS[resource.type].call for resource in seen.resources]
    services = {call[0] for call in calls if call is not None} | {"iot-data", "sts"}
    for service in sorted(services - set(_EVERYWHERE)):
        if not _offered(service, seen.place.region):
            yield seen.place.region, f"the region has no {service}: deploy to another"


def greengrass(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """A region in which devices cannot be Greengrass cores."""
    if not _offered(GREENGRASS, seen.place.region):
        yield (
            seen.place.region,
            "the region has no Greengrass: install the agent on devices by systemd",
        )


def private_dns(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """Endpoints with a private name that their service does not have."""
    for resource, service in _endpoints(seen):
        if service in _without_name(seen) and resource.properties.get("PrivateDnsEnabled"):
            yield resource.where, f"{service} has no private DNS name: creation is refused"


def iot_name(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """AWS IoT's endpoint without the name by which boto3 calls it."""
    host = f"data-ats.iot.{seen.place.region}.amazonaws.com"
    zones = [r.properties["Name"].rstrip(".") for r in seen.of_type("AWS::Route53::HostedZone")]
    for resource, service in _endpoints(seen):
        if service in _without_name(seen) and host not in zones:
            yield resource.where, f"no private zone names it {host}, so tasks' calls time out"
    for zone in zones:
        if host.endswith(f".{zone}"):
            yield seen.place.region, f"the private zone {zone} hides AWS IoT's other hosts"


def zones(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """Subnets in zones that do not offer every endpoint's service."""
    subnets = {r.properties.get("AvailabilityZone") for r in seen.of_type("AWS::EC2::Subnet")}
    for resource, service in _endpoints(seen):
        offered = seen.zones_of_services.get(service)
        missing = sorted(str(zone) for zone in subnets if offered and zone not in offered)
        if missing:
            yield resource.where, f"{service} is not offered in {', '.join(missing)}"


def _endpoints(seen: Rehearsed) -> Iterator[tuple[Resource, str]]:
    for resource in seen.of_type("AWS::EC2::VPCEndpoint"):
        if resource.properties.get("VpcEndpointType") == "Interface":
            yield resource, str(resource.properties["ServiceName"])


def _without_name(seen: Rehearsed) -> set[str]:
    return {service_name(service, seen.place.region) for service in NO_PRIVATE_DNS}


def _offered(service: str, region: str) -> bool:
    return region in session().get_available_regions(service)
