"""What a deployment asks an account before it creates stacks: zones, keys, ECS's role."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from pipelines.aws.endpoints import ENDPOINTS, service_name, zones_with_all
from pipelines.aws.kept_keys import KEY_PARAMETERS, kept_keys
from pipelines.aws.literal_names import NAMES, with_literal_names
from pipelines.aws.stack_specs import specs, template
from pipelines.aws.stacks.network import IOT_HOST
from pipelines.cli.commands.operate.deploy import make_service_role
from pipelines.deployment import Deployment
from pipelines.errors import DeployError

D = Deployment(account="123456789012", region="eu-central-1", prefix="plant")


class _Refused(Exception):
    pass


class Ec2:
    """Endpoint services by their zones, one to a page."""

    def __init__(self, zones: dict[str, list[str]]) -> None:
        self.zones = zones

    def get_paginator(self, _: str) -> Any:
        pages = [
            {"ServiceDetails": [{"ServiceName": name, "AvailabilityZones": zones}]}
            for name, zones in self.zones.items()
        ]
        return SimpleNamespace(paginate=lambda **_: iter(pages))


def everywhere(*zones: str) -> dict[str, list[str]]:
    return {service_name(service, D.region): list(zones) for service in ENDPOINTS.values()}


def test_the_subnets_are_where_every_endpoint_is() -> None:
    offered = everywhere("a", "b", "c")
    offered["com.amazonaws.eu-central-1.iot.data"] = ["c", "b"]
    assert zones_with_all(Ec2(offered), D.region) == ["b", "c"]


def test_a_region_without_an_endpoint_or_with_too_few_zones_is_refused() -> None:
    offered = everywhere("a", "b")
    del offered["aws.sagemaker.eu-central-1.experiments"]
    with pytest.raises(DeployError, match=r"no endpoint service aws\.sagemaker"):
        zones_with_all(Ec2(offered), D.region)
    assert zones_with_all(Ec2(offered), D.region, managed_mlflow=False) == ["a", "b"]
    with pytest.raises(DeployError, match="only 1 availability zones"):
        zones_with_all(
            Ec2({**everywhere("a", "b"), "com.amazonaws.eu-central-1.kms": ["a"]}), "eu-central-1"
        )


class Kms:
    exceptions = SimpleNamespace(NotFoundException=_Refused)

    def __init__(self, **states: str) -> None:
        self.states = states

    def describe_key(self, KeyId: str) -> dict[str, Any]:
        if KeyId not in self.states:
            raise _Refused
        return {
            "KeyMetadata": {"Arn": f"arn:{KeyId}", "KeyId": "1", "KeyState": self.states[KeyId]}
        }


def test_a_new_deployment_takes_the_keys_that_an_earlier_one_left() -> None:
    """Otherwise no device would believe it: they trust the public halves of the old keys."""
    left = Kms(**{"alias/plant": "Enabled", "alias/plant-commands": "Enabled"})
    found = kept_keys(left, D)
    assert found == {"DataKey": "arn:alias/plant", "CommandsKey": "arn:alias/plant-commands"}
    assert kept_keys(Kms(), D) == {}
    with pytest.raises(DeployError, match="PendingDeletion: cancel its deletion"):
        kept_keys(Kms(**{"alias/plant-models": "PendingDeletion"}), D)


def test_each_key_is_created_only_where_none_is_given() -> None:
    base = template("base")
    keys = {name: r for name, r in base["Resources"].items() if r["Type"] == "AWS::KMS::Key"}
    assert len(keys) == len(KEY_PARAMETERS)
    given = {base["Conditions"][key["Condition"]]["Fn::Equals"][0]["Ref"] for key in keys.values()}
    assert given == set(KEY_PARAMETERS.values())


def test_what_is_kept_does_not_outlive_a_failed_creation() -> None:
    """The next try would find its name taken."""
    policies = {
        resource.get("DeletionPolicy")
        for name in ("base", "data", "sagemaker")
        for resource in template(name)["Resources"].values()
    }
    assert policies == {None, "Delete", "RetainExceptOnCreate"}


def test_what_is_kept_has_a_name_by_which_the_next_deployment_takes_it_over() -> None:
    """Keys have none, and are found by their aliases."""
    kept = {
        (resource["Type"], resource["Properties"].get(NAMES.get(resource["Type"], "")))
        for spec in specs(D, {})
        for resource in spec.template["Resources"].values()
        if resource.get("DeletionPolicy", "").startswith("Retain")
    }
    named = {(kind, name) for kind, name in kept if kind != "AWS::KMS::Key"}
    assert {name for _, name in named} == {
        D.bucket,
        D.code_bucket,
        D.devices_table,
        D.replies_table,
        D.runs_table,
        D.rollouts_table,
        D.repository("server"),
        D.repository("proxy"),
        "alias/plant",
        D.commands_key,
        D.models_key,
        D.records_key,
        D.thing_type,
        D.thing_group,
    }


def test_a_name_that_needs_something_unknown_stays() -> None:
    name = {"Fn::Join": ["-", ["a", {"Ref": "Other"}]]}
    bucket = {
        "Type": "AWS::S3::Bucket",
        "DeletionPolicy": "RetainExceptOnCreate",
        "Properties": {"BucketName": name},
    }
    given = {"Resources": {"B": bucket, "T": {"Type": "AWS::SNS::Topic"}}}
    assert with_literal_names(given, {}) == given
    found = with_literal_names(given, {"Other": "b"})
    assert found["Resources"]["B"]["Properties"]["BucketName"] == "a-b"


def test_aws_iots_endpoint_has_its_name_from_a_zone_of_its_own() -> None:
    resources = template("data")["Resources"].values()
    endpoints = {
        str(r["Properties"]["ServiceName"]): r["Properties"].get("PrivateDnsEnabled")
        for r in resources
        if r["Type"] == "AWS::EC2::VPCEndpoint" and r["Properties"].get("VpcEndpointType")
    }
    assert [name for name, private in endpoints.items() if not private and "iot.data" in name]
    assert all(
        private
        for name, private in endpoints.items()
        if "iot.data" not in name and "s3" not in name and "dynamodb" not in name
    )
    called = boto3.client("iot-data", "eu-central-1").meta.endpoint_url
    assert called == f"https://{IOT_HOST}.eu-central-1.amazonaws.com"
    (zone,) = (r for r in resources if r["Type"] == "AWS::Route53::HostedZone")
    assert zone["Properties"]["Name"]["Fn::Join"][1][0] == f"{IOT_HOST}."


class _Exists(Exception):
    pass


class Iam:
    exceptions = SimpleNamespace(
        InvalidInputException=_Refused, EntityAlreadyExistsException=_Exists
    )

    def __init__(self, refusal: str = "") -> None:
        self.refusal, self.asked = refusal, []

    def create_service_linked_role(self, AWSServiceName: str) -> None:
        self.asked.append(AWSServiceName)
        if self.refusal:
            raise _Refused(self.refusal)


def test_ecs_gets_its_role_in_an_account_that_never_used_it() -> None:
    fresh = Iam()
    make_service_role(fresh)
    assert fresh.asked == ["ecs.amazonaws.com"]
    make_service_role(Iam("Service role name AWSServiceRoleForECS has been taken in this account"))
    with pytest.raises(_Refused):
        make_service_role(Iam("not this"))


def test_a_deployment_of_0_4_keeps_its_alias() -> None:
    """Under another logical id CloudFormation would create it again, before the old one goes."""
    assert "KeyAlias05F1A7FE" in template("base")["Resources"]
