"""VPC endpoints: which services the tasks call, and which zones offer all of them."""

from __future__ import annotations

from typing import Any

from pipelines.errors import DeployError

ZONES = 2
"""How many availability zones the tasks' subnets are in."""
IOT_DATA = "iot.data"
MLFLOW = "sagemaker.experiments"
"""Managed MLflow's; not made where another server is used."""
ENDPOINTS = {
    "EcrApi": "ecr.api",
    "EcrImages": "ecr.dkr",
    "Logs": "logs",
    "Steps": "states",
    "Secrets": "secretsmanager",
    "Iot": IOT_DATA,
    "Kms": "kms",
    "Mlflow": MLFLOW,
}
"""The services that tasks call, by construct:
https://docs.aws.amazon.com/vpc/latest/privatelink/aws-services-privatelink-support.html
"""
NO_PRIVATE_DNS = (IOT_DATA,)
"""Services that refuse an endpoint with a private DNS name:
https://docs.aws.amazon.com/iot/latest/developerguide/IoTCore-VPC.html
"""


def service_name(service: str, region: str) -> str:
    """An endpoint service's name. That of managed MLflow has a form of its own."""
    if service == MLFLOW:
        return f"aws.sagemaker.{region}.experiments"
    return f"com.amazonaws.{region}.{service}"


def zones_with_all(ec2: Any, region: str, *, managed_mlflow: bool = True) -> list[str]:
    """The first zones of a region that offer every endpoint, sorted. ``ec2``: a client.

    Raises:
        DeployError: Fewer than ``ZONES`` do.

    """
    needed = [service for service in ENDPOINTS.values() if managed_mlflow or service != MLFLOW]
    names = {service_name(service, region) for service in needed}
    pages = ec2.get_paginator("describe_vpc_endpoint_services").paginate(
        Filters=[{"Name": "service-name", "Values": sorted(names)}]
    )
    offered = {
        detail["ServiceName"]: set(detail["AvailabilityZones"])
        for page in pages
        for detail in page["ServiceDetails"]
    }
    missing = sorted(names - set(offered))
    if missing:
        raise DeployError(
            f"Region {region} has no endpoint service {missing[0]}, which the tasks need: "
            "deploy to another region."
        )
    common = sorted(set.intersection(*offered.values()))
    if len(common) < ZONES:
        raise DeployError(
            f"In region {region} only {len(common)} availability zones offer all endpoints, and "
            f"{ZONES} are needed: deploy to another region, or name the zones by --set Zones=A,B."
        )
    return common[:ZONES]
