"""``mledgeops destroy``: deletes the stacks of a deployment."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

from fl_runtime.run.aws import client
from pipelines.aws.deploy import Stacks
from pipelines.aws.stack_specs import specs
from pipelines.cli.options import declare
from pipelines.cli.output import answer
from pipelines.deployment import Deployment
from pipelines.desk import clouds
from pipelines.devices.attachments import detach_all
from pipelines.errors import UsageError


def add_parser(commands: Any) -> None:
    """Declare the command."""
    destroy = commands.add_parser("destroy")
    destroy.add_argument(
        "--data-too", action="store_true", help="delete the data as well, for good"
    )
    destroy.add_argument("--yes", action="store_true", help="do not ask")
    declare(destroy, destroy_stacks, cloud=False)


def destroy_stacks(arguments: argparse.Namespace) -> int:
    """Delete the stacks, newest first, and list the resources that stay with their data."""
    with clouds.use("aws") as cloud:
        d = cloud.deployment
        if not arguments.yes:
            raise UsageError(
                f"This deletes the stacks {', '.join(d.stacks)} in account {d.account}, "
                f"{d.region}: repeat it with --yes."
            )
        cloudformation, s3 = client("cloudformation"), client("s3")
        kept = [] if arguments.data_too else _retained(d, cloudformation)
        stacks = Stacks(cloudformation, s3, d.code_bucket)
        detach_all(client("iot"), d)
        for name in reversed(d.stacks):
            stacks.delete(name)
        if arguments.data_too:
            _delete_data(d, s3, client("dynamodb"), client("ecr"))
    text = "\n".join(["stacks deleted; kept:", *kept])
    answer(arguments.json, {"destroyed": list(d.stacks), "kept": kept}, text)
    return 0


def _retained(d: Deployment, cloudformation: Any) -> list[str]:
    """Type and id of the resources that outlive their stack (their ``DeletionPolicy``)."""
    found = []
    for stack, spec in zip(d.stacks, specs(d, {}), strict=True):
        kept = {
            name
            for name, resource in spec.template["Resources"].items()
            if resource.get("DeletionPolicy", "").startswith("Retain")
        }
        pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
        with contextlib.suppress(cloudformation.exceptions.ClientError):  # there is no such stack
            found += [
                f"{r['ResourceType']} {r['PhysicalResourceId']}"
                for page in pages
                for r in page["StackResourceSummaries"]
                if r["LogicalResourceId"] in kept
            ]
    return found


def _delete_data(d: Deployment, s3: Any, dynamodb: Any, ecr: Any) -> None:
    """Delete the buckets with all versions, the tables and the images (idempotent).

    The KMS key is deleted by KMS after its waiting period of 30 days; models and devices stay in
    their services.
    """
    for bucket in (d.bucket, d.code_bucket):
        _delete_bucket(s3, bucket)
    for table in (d.runs_table, d.rollouts_table, d.devices_table, d.replies_table):
        try:
            dynamodb.update_table(TableName=table, DeletionProtectionEnabled=False)
            dynamodb.delete_table(TableName=table)
        except dynamodb.exceptions.ResourceNotFoundException:
            continue
    for task in ("server", "proxy"):
        try:
            ecr.delete_repository(repositoryName=d.repository(task), force=True)
        except ecr.exceptions.RepositoryNotFoundException:
            continue


def _delete_bucket(s3: Any, bucket: str) -> None:
    try:
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            items = [
                {"Key": item["Key"], "VersionId": item["VersionId"]}
                for kind in ("Versions", "DeleteMarkers")
                for item in page.get(kind, [])
            ]
            if items:
                s3.delete_objects(Bucket=bucket, Delete={"Objects": items, "Quiet": True})
        s3.delete_bucket(Bucket=bucket)
    except s3.exceptions.NoSuchBucket:
        return
