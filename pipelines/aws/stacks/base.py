"""What must be there before anything is deployed: a bucket for code and components, a repository
for each image, the key.
"""

from __future__ import annotations

from typing import cast

import aws_cdk as cdk
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from pipelines.aws.stacks.stack import Stack, accept

KEY_EXPORT = "key"
SIGNING_EXPORTS = {"commands": "signing-commands", "models": "signing-models"}
"""Exports of the keys that sign, by what they sign."""
KEPT_IMAGES = 20


class BaseStack(Stack):
    """Code bucket, image repositories, key."""

    def __init__(self, scope: Construct, name: str) -> None:
        super().__init__(scope, name, "MLEdgeOps: code bucket, image repositories and key")
        d = self.deployment()
        key = kms.Key(
            self,
            "Key",
            enable_key_rotation=True,
            description=f"MLEdgeOps data at rest ({self.prefix})",
        )
        kms.Alias(self, "KeyAlias", alias_name=f"alias/{self.prefix}", target_key=key)
        for grant in _service_grants():
            key.add_to_resource_policy(grant)
        code = s3.Bucket(
            self,
            "CodeBucket",
            bucket_name=d.code_bucket,
            encryption=s3.BucketEncryption.KMS,
            encryption_key=key,
            bucket_key_enabled=True,
            enforce_ssl=True,
            versioned=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            removal_policy=cdk.RemovalPolicy.RETAIN,
            lifecycle_rules=[
                s3.LifecycleRule(
                    noncurrent_version_expiration=cdk.Duration.days(90),
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(2),
                )
            ],
        )
        accept_bucket(code)
        for task in ("server", "proxy"):
            ecr.Repository(
                self,
                f"Images{task.capitalize()}",
                repository_name=d.repository(task),
                image_scan_on_push=True,
                image_tag_mutability=ecr.TagMutability.IMMUTABLE,
                encryption=ecr.RepositoryEncryption.KMS,
                encryption_key=key,
                lifecycle_rules=[ecr.LifecycleRule(max_image_count=KEPT_IMAGES)],
                removal_policy=cdk.RemovalPolicy.RETAIN,
            )
        for purpose, export in SIGNING_EXPORTS.items():
            signing = kms.CfnKey(
                self,
                f"Signing{purpose.capitalize()}",
                key_spec="ECC_NIST_P256",
                key_usage="SIGN_VERIFY",
                description=f"MLEdgeOps signs {purpose} ({self.prefix})",
                key_policy=_signing_policy(),
                pending_window_in_days=30,
            )
            signing.apply_removal_policy(cdk.RemovalPolicy.RETAIN)
            kms.CfnAlias(
                self,
                f"Signing{purpose.capitalize()}Alias",
                alias_name=f"alias/{self.prefix}-{purpose}",
                target_key_id=signing.ref,
            )
            accept(
                signing,
                {
                    "CKV_AWS_7": "KMS rotates no asymmetric keys; the handbook says how to change one"
                },
            )
            cdk.CfnOutput(
                self,
                f"Signing{purpose.capitalize()}Arn",
                value=signing.attr_arn,
                export_name=f"{self.prefix}-{export}",
            )
        cdk.CfnOutput(self, "KeyArn", value=key.key_arn, export_name=f"{self.prefix}-{KEY_EXPORT}")


def _signing_policy() -> dict[str, object]:
    """The account's own policies decide, as with other keys."""
    root = {"AWS": f"arn:aws:iam::{cdk.Aws.ACCOUNT_ID}:root"}
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": root, "Action": "kms:*", "Resource": "*"}],
    }


def signing_keys(stack: Stack) -> dict[str, str]:
    """ARNs of the signing keys, in another stack, as :class:`Deployment` names them."""
    return {
        f"{purpose}_key_arn": cdk.Fn.import_value(f"{stack.prefix}-{export}")
        for purpose, export in SIGNING_EXPORTS.items()
    }


def _service_grants() -> list[iam.PolicyStatement]:
    """Services that use the key in our name: logs, alarms' topics, and nothing for another
    account's sake.
    """
    return [
        iam.PolicyStatement(
            sid="Logs",
            principals=[iam.ServicePrincipal(f"logs.{cdk.Aws.REGION}.amazonaws.com")],
            actions=[
                "kms:Encrypt",
                "kms:Decrypt",
                "kms:ReEncrypt*",
                "kms:GenerateDataKey*",
                "kms:DescribeKey",
            ],
            resources=["*"],
            conditions={
                "ArnLike": {
                    "kms:EncryptionContext:aws:logs:arn": f"arn:aws:logs:{cdk.Aws.REGION}:{cdk.Aws.ACCOUNT_ID}:log-group:*"
                }
            },
        ),
        iam.PolicyStatement(
            sid="Alarms",
            principals=[
                iam.ServicePrincipal("cloudwatch.amazonaws.com"),
                iam.ServicePrincipal("budgets.amazonaws.com"),
            ],
            actions=["kms:Decrypt", "kms:GenerateDataKey*"],
            resources=["*"],
            conditions={"StringEquals": {"aws:SourceAccount": cdk.Aws.ACCOUNT_ID}},
        ),
    ]


def accept_bucket(bucket: s3.Bucket) -> None:
    """What checkov finds of our buckets and does not hold."""
    accept(
        cast(s3.CfnBucket, bucket.node.default_child),
        {
            "CKV_AWS_18": "who read an object is CloudTrail's to record (data events), by the account's choice; access logs would need one more bucket",
        },
    )


def base_key(stack: Stack) -> tuple[kms.IKey, str]:
    """The base stack's key, in another stack, and its ARN."""
    arn = cdk.Fn.import_value(f"{stack.prefix}-{KEY_EXPORT}")
    return kms.Key.from_key_arn(stack, "Key", arn), arn
