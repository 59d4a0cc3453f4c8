"""Deploys the shipped templates to the emulators: what runs here is what deploys to AWS.

Resource types that no emulator takes are left out; ``GAPS.md`` names the validator that covers
each of them.
"""

from __future__ import annotations

import logging
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
    "AWS::IoT::RoleAlias": "no local device asks for AWS credentials",
    "AWS::SageMaker::MlflowApp": "MLflow is a file in the home folder",
    "AWS::SageMaker::MlflowTrackingServer": "MLflow is a file in the home folder",
}
"""Resource types that ministack's CloudFormation refuses, and why they are not missed here."""
POLL_SECONDS = 0.05
FURTHER_PIPELINES = "arn:aws:sagemaker:{region}:{account}:pipeline/*"
"""On this machine every pipeline may have federated steps."""
FRESH_SECONDS = "45"
"""Age of a heartbeat from which a device counts as gone. Local devices send one every 2 s, or where
they are many every 15 s.
"""


def reduce(template: dict[str, Any]) -> dict[str, Any]:
    """A template without the resources that are not emulated and without dependencies on them."""
    kept = {
        name: dict(resource)
        for name, resource in template["Resources"].items()
        if resource["Type"] not in NOT_EMULATED
    }
    for resource in kept.values():
        depends = resource.get("DependsOn", [])
        names = [depends] if isinstance(depends, str) else depends
        resource["DependsOn"] = [name for name in names if name in kept]
    return {**template, "Resources": kept}


def deploy(d: Deployment, cloudformation: Any, s3: Any, tracking_uri: str) -> None:
    """Create or update the three stacks; one that is up to date is left alone."""
    stacks = Stacks(cloudformation, s3, d.code_bucket, poll_seconds=POLL_SECONDS)
    code = bundle()
    key = code_key(code)
    parameters = {
        "CodeKey": key,
        "MlflowTrackingUri": tracking_uri,
        "FreshSeconds": FRESH_SECONDS,
        "ImageTag": "local",
        "FurtherPipelines": FURTHER_PIPELINES.format(region=d.region, account=d.account),
    }
    for spec in specs(d, parameters, reduce=reduce):
        if not stacks.same(spec):
            changes = stacks.apply(spec)
            event(logger, "stack-deployed", stack=spec.name, changes=len(changes))
        if spec.name == d.stacks[0]:
            # The first stack has the bucket from which the others take the functions' code.
            s3.put_object(Bucket=d.code_bucket, Key=key, Body=code)
