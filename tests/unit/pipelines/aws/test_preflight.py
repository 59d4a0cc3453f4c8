"""What stands against a deployment is told before anything is created."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    UnauthorizedSSOTokenError,
)

from pipelines.aws.deploy import going_on
from pipelines.aws.preflight import check_region, check_roles, check_stacks
from pipelines.deployment import Deployment, check_prefix
from pipelines.errors import DeployError, UsageError, aws_refusal

D = Deployment(account="123456789012", region="eu-central-1", prefix="plant")


class Iot:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def describe_endpoint(self, endpointType: str) -> None:
        if self.error is not None:
            raise self.error


def test_a_region_must_have_what_a_run_needs_and_may_lack_greengrass() -> None:
    session = boto3.Session()
    assert check_region(session, Iot(), "eu-central-1") == ""
    assert "Greengrass: install agents by" in check_region(session, Iot(), "eu-west-3")
    unresolved = EndpointConnectionError(endpoint_url="https://iot.mx-central-1.amazonaws.com")
    with pytest.raises(DeployError, match="mx-central-1 has no AWS IoT Core"):
        check_region(session, Iot(unresolved), "mx-central-1")
    with pytest.raises(DeployError, match="partition aws-cn"):
        check_region(session, Iot(), "cn-north-1")


class CloudFormation:
    exceptions = SimpleNamespace(ClientError=ClientError)

    def __init__(self, **statuses: str) -> None:
        self.statuses = statuses

    def describe_stacks(self, StackName: str) -> dict[str, Any]:
        status = self.statuses.get(StackName.rsplit("-")[1])
        if status is None:
            message = f"Stack with id {StackName} does not exist"
            error = {"Error": {"Code": "ValidationError", "Message": message}}
            raise ClientError(error, "DescribeStacks")
        return {"Stacks": [{"StackStatus": status}]}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("ROLLBACK_COMPLETE", "delete-stack --stack-name plant-data"),
        ("CREATE_IN_PROGRESS", "wait stack-create-complete --stack-name plant-data"),
        ("UPDATE_IN_PROGRESS", "wait stack-update-complete"),
        ("UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS", "wait stack-update-complete"),
        ("DELETE_IN_PROGRESS", "wait stack-delete-complete"),
    ],
)
def test_a_stack_that_cannot_be_changed_now_is_told_with_the_next_command(
    status: str, said: str
) -> None:
    with pytest.raises(DeployError, match=said) as refused:
        check_stacks(CloudFormation(base="CREATE_COMPLETE", data=status), D)
    assert "repeat the command" in str(refused.value)


def test_stacks_that_stand_or_are_only_planned_may_be_changed() -> None:
    check_stacks(CloudFormation(base="UPDATE_ROLLBACK_COMPLETE", data="REVIEW_IN_PROGRESS"), D)
    check_stacks(CloudFormation(), D)


class _Missing(Exception):
    pass


class Iam:
    exceptions = SimpleNamespace(NoSuchEntityException=_Missing)

    def __init__(self, *roles: str) -> None:
        self.roles = roles

    def get_role(self, RoleName: str) -> None:
        if RoleName not in self.roles:
            raise _Missing


def test_a_second_region_needs_another_prefix() -> None:
    check_roles(Iam(), CloudFormation(), D)
    check_roles(Iam("plant-server"), CloudFormation(data="UPDATE_COMPLETE"), D)
    with pytest.raises(DeployError, match=r"plant-server exists .* another prefix"):
        check_roles(Iam("plant-server"), CloudFormation(), D)


@pytest.mark.parametrize("prefix", ["", "ml", "Plant", "my-plant", "1plant", "p" * 17, "plant\n"])
def test_a_prefix_that_no_name_may_begin_with_is_refused(prefix: str) -> None:
    with pytest.raises(UsageError, match="3 to 16 lower-case letters"):
        check_prefix(prefix)
    assert check_prefix("p" * 16) == "p" * 16


def test_the_longest_prefix_fits_the_names_that_aws_limits() -> None:
    longest = Deployment(account="1" * 12, region="ap-southeast-1", prefix="p" * 16)
    assert len(longest.role("rollout-machine").rsplit("/", 1)[1]) <= 64
    assert len(longest.code_bucket) <= 63
    assert len(longest.function("dispatch")) <= 64


def client_error(code: str, message: str = "no.") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "CreateChangeSet")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NoCredentialsError(), "no AWS credentials: sign in"),
        (UnauthorizedSSOTokenError(), "has expired: sign in again"),
        (client_error("ExpiredToken"), "has expired: sign in again"),
        (client_error("InvalidClientTokenId"), "does not know your credentials"),
        (client_error("AccessDenied", "You may not."), "AWS refuses it: You may not. Ask"),
        (EndpointConnectionError(endpoint_url="https://x"), '"https://x": check the network'),
    ],
)
def test_what_aws_refuses_is_told_in_a_sentence(error: Exception, said: str) -> None:
    refusal = aws_refusal(error)
    assert refusal is not None
    assert said in str(refusal)
    assert refusal.exit_code == 2


def test_other_errors_are_not_taken_for_the_callers() -> None:
    assert aws_refusal(client_error("ValidationError")) is None
    assert aws_refusal(ValueError("AccessDenied")) is None


def test_a_session_that_ends_in_the_middle_leaves_cloudformation_at_work() -> None:
    said = r"plant-data may be under way.* sign in again"
    with pytest.raises(DeployError, match=said), going_on("plant-data"):
        raise client_error("ExpiredToken")
    with pytest.raises(ValueError, match="a bug"), going_on("plant-data"):
        raise ValueError("a bug")
