"""What the role of a team's own pipeline needs for a federated step; the team attaches it."""

from __future__ import annotations

from pipelines.aws.policies.statement import (
    Statement,
    allow,
    queue_arn,
    use_key,
    use_objects,
    use_packages,
)
from pipelines.deployment import Deployment


def pipeline_role(d: Deployment) -> list[Statement]:
    """The role that SageMaker runs the pipeline with: it sends the callback, and registers models.

    https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-access.html
    """
    groups = f"arn:aws:sagemaker:{d.region}:{d.account}:model-package-group/*"
    return [
        allow(["sqs:SendMessage"], [queue_arn(d)]),
        use_key(d, "sqs", "s3"),
        use_objects(d, "runs/*", "Get"),
        use_packages(d, "Create"),
        allow(
            ["sagemaker:DescribeModelPackageGroup", "sagemaker:CreateModelPackageGroup"], [groups]
        ),
    ]


def author(d: Deployment) -> list[Statement]:
    """Whoever makes the pipeline's definition: it uploads the app."""
    return [use_objects(d, "apps/*", "Put"), use_key(d, "s3")]
