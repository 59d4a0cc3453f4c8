"""The base stack: what must exist before anything can be uploaded.

The code bucket, a repository for each image, the keys.
"""

from __future__ import annotations

from typing import cast

import aws_cdk as cdk
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from pipelines.aws.kept_keys import KEY_PARAMETERS
from pipelines.aws.stacks.stack import KEPT, Stack, accept
from pipelines.deployment import Deployment

KEY_EXPORT = "key"
SIGNING_EXPORTS = {
    "commands": "signing-commands",
    "models": "signing-models",
    "records": "signing-records",
}
"""Names of the signing keys' exports, by what they sign."""
SIGNER = {"records": "link"}
"""The one role that may use a signing key, where not even an administrator may."""
DATA_ALIAS = "KeyAlias05F1A7FE"
KEPT_IMAGES = 20
FALSE_FINDINGS = {
    "F3033": "the empty default of a key's parameter is used nowhere: then a new key is created",
    "W1001": "the condition of a new key is the condition of the reference to it",
}
"""What the CDK's validation finds in ``Fn::If``, whose condition it does not evaluate."""


class BaseStack(Stack):
    """Code bucket, image repositories, keys."""

    def __init__(self, scope: Construct, name: str) -> None:
        super().__init__(scope, name, "MLEdgeOps: code bucket, image repositories and key")
        d = self.deployment()
        key = self._data_key()
        self._code_bucket(d, key)
        for task in ("server", "proxy"):
            self._repository(d, task, key)
        for purpose, export in SIGNING_EXPORTS.items():
            self._signing_key(d, purpose, export)
        cdk.CfnOutput(self, "KeyArn", value=key.key_arn, export_name=f"{self.prefix}-{KEY_EXPORT}")
        for finding, reason in FALSE_FINDINGS.items():
            cdk.Validations.of(self).acknowledge(
                cdk.Acknowledgment(id=f"CloudFormation-Validate::{finding}", reason=reason)
            )

    def _data_key(self) -> kms.IKey:
        key = kms.Key(
            self,
            "Key",
            enable_key_rotation=True,
            description=f"MLEdgeOps data at rest ({self.prefix})",
            removal_policy=KEPT,
        )
        for grant in _service_grants():
            key.add_to_resource_policy(grant)
        made = cast(kms.CfnKey, key.node.default_child)
        arn = self._kept_or_new("data", made)
        # Under its id in 0.4: under another it would be created a second time.
        self._alias(DATA_ALIAS, f"alias/{self.prefix}", arn)
        return kms.Key.from_key_arn(self, "DataKeyUsed", arn)

    def _kept_or_new(self, purpose: str, key: kms.CfnKey) -> str:
        """ARN of the key that an earlier deployment left, if it is given, else of ``key``, which is
        created only then. A key has no name by which CloudFormation could import it.
        """
        given = self.parameter(
            KEY_PARAMETERS[purpose],
            f"ARN of the {purpose} key of an earlier deployment; empty: a new key",
            default="",
        ).value_as_string
        new = cdk.CfnCondition(
            self, f"New{purpose.capitalize()}Key", expression=cdk.Fn.condition_equals(given, "")
        )
        key.cfn_options.condition = new
        return str(cdk.Fn.condition_if(new.logical_id, key.attr_arn, given).to_string())

    def _alias(self, identifier: str, name: str, key: str) -> None:
        """A name for a key. It outlives the stack: the next deployment finds the key by it."""
        alias = kms.CfnAlias(self, identifier, alias_name=name, target_key_id=key)
        alias.apply_removal_policy(KEPT)

    def _code_bucket(self, d: Deployment, key: kms.IKey) -> None:
        bucket = s3.Bucket(
            self,
            "CodeBucket",
            bucket_name=d.code_bucket,
            encryption=s3.BucketEncryption.KMS,
            encryption_key=key,
            bucket_key_enabled=True,
            enforce_ssl=True,
            versioned=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            removal_policy=KEPT,
            lifecycle_rules=[
                s3.LifecycleRule(
                    noncurrent_version_expiration=cdk.Duration.days(90),
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(2),
                )
            ],
        )
        accept_bucket(bucket)

    def _repository(self, d: Deployment, task: str, key: kms.IKey) -> None:
        ecr.Repository(
            self,
            f"Images{task.capitalize()}",
            repository_name=d.repository(task),
            image_scan_on_push=True,
            image_tag_mutability=ecr.TagMutability.IMMUTABLE,
            encryption=ecr.RepositoryEncryption.KMS,
            encryption_key=key,
            lifecycle_rules=[ecr.LifecycleRule(max_image_count=KEPT_IMAGES)],
            removal_policy=KEPT,
        )

    def _signing_key(self, d: Deployment, purpose: str, export: str) -> None:
        key = kms.CfnKey(
            self,
            f"Signing{purpose.capitalize()}",
            key_spec="ECC_NIST_P256",
            key_usage="SIGN_VERIFY",
            description=f"MLEdgeOps signs {purpose} ({self.prefix})",
            key_policy=_signing_policy(d.role(SIGNER[purpose]) if purpose in SIGNER else ""),
            pending_window_in_days=30,
        )
        key.apply_removal_policy(KEPT)
        arn = self._kept_or_new(purpose, key)
        self._alias(f"Signing{purpose.capitalize()}Alias", f"alias/{self.prefix}-{purpose}", arn)
        accept(
            key,
            {"CKV_AWS_7": "KMS rotates no asymmetric keys; the handbook says how to change one"},
        )
        cdk.CfnOutput(
            self,
            f"Signing{purpose.capitalize()}Arn",
            value=arn,
            export_name=f"{self.prefix}-{export}",
        )


def _signing_policy(only: str) -> dict[str, object]:
    """The account's IAM policies decide who signs, as with other keys; ``only``: ARN of the one
    role that may sign whatever they say.
    """
    root = {"AWS": f"arn:aws:iam::{cdk.Aws.ACCOUNT_ID}:root"}
    allowed = {"Effect": "Allow", "Principal": root, "Action": "kms:*", "Resource": "*"}
    # An assumed role's session has the role's ARN as aws:PrincipalArn:
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
    denied = {
        "Effect": "Deny",
        "Principal": {"AWS": "*"},
        "Action": "kms:Sign",
        "Resource": "*",
        "Condition": {"ArnNotEquals": {"aws:PrincipalArn": only}},
    }
    return {"Version": "2012-10-17", "Statement": [allowed, *([denied] if only else [])]}


def signing_keys(stack: Stack) -> dict[str, str]:
    """ARNs of the signing keys, imported by another stack, under their names in Deployment."""
    return {
        f"{purpose}_key_arn": cdk.Fn.import_value(f"{stack.prefix}-{export}")
        for purpose, export in SIGNING_EXPORTS.items()
    }


def _service_grants() -> list[iam.PolicyStatement]:
    """Services that use the data key for this account: log groups and alarm topics.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
    """
    log_groups = f"arn:aws:logs:{cdk.Aws.REGION}:{cdk.Aws.ACCOUNT_ID}:log-group:*"
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
                "ArnLike": {"kms:EncryptionContext:aws:logs:arn": log_groups},
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
    """Accept what checkov finds about our buckets, with the reason."""
    accept(
        cast(s3.CfnBucket, bucket.node.default_child),
        {
            "CKV_AWS_18": "who read an object is CloudTrail's to record (data events), by the "
            "account's choice; access logs would need one more bucket",
        },
    )


def base_key(stack: Stack) -> tuple[kms.IKey, str]:
    """The data key, imported by another stack, and its ARN."""
    arn = cdk.Fn.import_value(f"{stack.prefix}-{KEY_EXPORT}")
    return kms.Key.from_key_arn(stack, "Key", arn), arn
