"""What stands against a deployment, asked before anything is created.

Each is told in one sentence, with the next command.
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError

from pipelines.aws.stack_state import NEW, UNUSABLE, read_status
from pipelines.deployment import Deployment
from pipelines.errors import DeployError

GREENGRASS = "greengrassv2"
_WAITERS = {"CREATE": "stack-create-complete", "DELETE": "stack-delete-complete"}


def check_region(session: Any, iot: Any, region: str) -> str:
    """A remark about the region, or nothing. ``session``: boto3's; ``iot``: a client.

    Raises:
        DeployError: The region has other names, or no AWS IoT Core.

    """
    partition = session.get_partition_for_region(region)
    if partition != "aws":
        raise DeployError(
            f"Region {region} belongs to the partition {partition}, whose names differ: choose a "
            "commercial region by AWS_DEFAULT_REGION."
        )
    try:
        # Asked and not looked up: botocore's list lacks the newest regions.
        iot.describe_endpoint(endpointType="iot:Data-ATS")
    except (EndpointConnectionError, ConnectTimeoutError) as error:
        raise DeployError(
            f"Region {region} has no AWS IoT Core, or it cannot be reached ({error}): choose "
            "another region by AWS_DEFAULT_REGION."
        ) from error
    if region not in session.get_available_regions(GREENGRASS):
        return (
            f"region {region} is not known to have Greengrass: install agents by "
            "edge/systemd/install.sh, or deploy to another region"
        )
    return ""


def check_stacks(cloudformation: Any, d: Deployment) -> None:
    """Raises DeployError for a stack that another command is changing, or that cannot change."""
    for name in d.stacks:
        status = read_status(cloudformation, name) or ""
        if status in UNUSABLE:
            raise DeployError(
                f"Stack {name} is in {status}, which nothing leads out of: delete it by `aws "
                f"cloudformation delete-stack --stack-name {name}`, and repeat the command."
            )
        if status.endswith("IN_PROGRESS") and status not in NEW:
            waiter = _WAITERS.get(status.split("_")[0], "stack-update-complete")
            raise DeployError(
                f"Stack {name} is in {status}, so another command is changing it: wait for it by "
                f"`aws cloudformation wait {waiter} --stack-name {name}`, and repeat the command."
            )


def check_roles(iam: Any, cloudformation: Any, d: Deployment) -> None:
    """Raises DeployError where the account has this prefix in another region: names of roles are
    the account's, and not a region's.
    """
    if read_status(cloudformation, d.stacks[1]) not in (None, *NEW):
        return
    role = d.role("server").rsplit("/", 1)[1]
    try:
        iam.get_role(RoleName=role)
    except iam.exceptions.NoSuchEntityException:
        return
    raise DeployError(
        f"The role {role} exists in this account, and region {d.region} has no deployment "
        f"{d.prefix!r}: a deployment of that prefix stands in another region. Choose another "
        "prefix by MLEDGEOPS_PREFIX, and repeat the command."
    )
