"""Deploys the shipped templates to the emulators: what runs here is what deploys to AWS.

What no emulator takes is left out, by type; ``GAPS.md`` says of each which validator covers it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from edge.logs import event
from pipelines.aws.deploy import Stacks
from pipelines.aws.lambda_bundle import bundle, code_key
from pipelines.aws.stack_specs import specs
from pipelines.deployment import Deployment

logger = logging.getLogger(__name__)

NOT_EMULATED = {
    "AWS::Budgets::Budget": "no billing here",
    "AWS::EC2::SecurityGroupIngress": "processes on loopback have no network of their own",
    "AWS::IoT::RoleAlias": "no device here asks for AWS credentials",
    "AWS::SageMaker::MlflowTrackingServer": "MLflow is a file in the home folder",
    "AWS::SageMaker::ModelPackageGroup": "SageMaker is served by moto; a group is made by its first package",
}
"""Resource types that ministack's CloudFormation refuses."""
POLL_SECONDS = 0.05
FRESH_SECONDS = "15"
"""A local device beats every two seconds: this many without one and it is gone."""


def reduce(template: dict[str, Any]) -> dict[str, Any]:
    """A template without the resources that are not emulated, nor what refers to them."""
    kept = {
        name: dict(r) for name, r in template["Resources"].items() if r["Type"] not in NOT_EMULATED
    }
    for resource in kept.values():
        depends = resource.get("DependsOn", [])
        resource["DependsOn"] = [
            name for name in ([depends] if isinstance(depends, str) else depends) if name in kept
        ]
    return {**template, "Resources": kept}


def deploy(d: Deployment, client: Callable[[str], Any], tracking_uri: str) -> None:
    """Create or update the three stacks; one that stands as it should is left alone."""
    s3 = client("s3")
    stacks = Stacks(client("cloudformation"), s3, d.code_bucket, poll_seconds=POLL_SECONDS)
    code = bundle()
    key = code_key(code)
    parameters = {
        "CodeKey": key,
        "MlflowTrackingUri": tracking_uri,
        "FreshSeconds": FRESH_SECONDS,
        "ImageTag": "local",
    }
    for spec in specs(d, parameters, reduce=reduce):
        if not stacks.same(spec):
            changes = stacks.apply(spec)
            event(logger, "stack-deployed", stack=spec.name, changes=len(changes))
        if spec.name == d.stacks[0]:
            s3.put_object(Bucket=d.code_bucket, Key=key, Body=code)
