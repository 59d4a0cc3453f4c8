"""The rehearsal's CloudFormation: what a stack leaves when it fails or goes, and the requests that
its resources become.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from pipelines.aws.rehearsal.account import Account
from pipelines.aws.rehearsal.formation import Formation
from pipelines.aws.rehearsal.kinds import KINDS
from pipelines.aws.rehearsal.requests import refusals
from pipelines.aws.rehearsal.values import Place, Resource
from pipelines.aws.stack_specs import TEMPLATES, template

PLACE = Place(account="123456789012", region="eu-central-1", zones=("a", "b"))


def bucket(policy: str, name: Any = "plant-data") -> dict[str, Any]:
    return {
        "Type": "AWS::S3::Bucket",
        "DeletionPolicy": policy,
        "Properties": {"BucketName": name},
    }


class World:
    """One account and its stack ``it``."""

    def __init__(self) -> None:
        self.account = Account(place=PLACE)
        self.formation = Formation(self.account, {}, frozenset)

    def create(self, resource: dict[str, Any], *, takes_over: bool = True) -> str:
        body = {"Resources": {"Bucket": resource}}
        asked = {
            "StackName": "it",
            "ChangeSetName": "one",
            "Parameters": [],
            "TemplateBody": json.dumps(body),
            "ImportExistingResources": takes_over,
        }
        self.formation.create_change_set(asked)
        self.formation.execute_change_set(asked)
        return str(self.formation.describe_stacks({"StackName": "it"})["Stacks"][0]["StackStatus"])

    def delete(self) -> None:
        self.formation.delete_stack({"StackName": "it"})


@pytest.mark.parametrize(("policy", "clashes"), [("Retain", 1), ("RetainExceptOnCreate", 0)])
def test_a_failed_creation_leaves_only_what_is_always_retained(policy: str, clashes: int) -> None:
    world = World()
    world.formation.failing = "it"
    assert world.create(bucket(policy)) == "ROLLBACK_COMPLETE"
    world.delete()
    assert world.create(bucket(policy), takes_over=False) == "CREATE_COMPLETE"
    assert len(world.account.taken) == clashes


def test_what_outlived_its_stack_is_taken_over_by_its_literal_name_only() -> None:
    world, parts = World(), {"Fn::Join": ["-", ["plant", "data"]]}
    world.create(bucket("RetainExceptOnCreate"))
    world.delete()
    world.create(bucket("RetainExceptOnCreate"))
    assert world.account.taken == []
    world.delete()
    world.create(bucket("RetainExceptOnCreate", parts))
    ((where, reason),) = world.account.taken
    assert (where, reason.split()[0]) == ("it: Bucket", "plant-data")


def test_a_stack_that_is_gone_is_answered_as_cloudformation_does() -> None:
    world = World()
    world.create(bucket("Delete"))
    world.delete()
    with pytest.raises(ClientError, match="does not exist"):
        world.formation.describe_stacks({"StackName": "it"})
    assert world.account.names == {}


def test_every_type_of_the_templates_is_known_and_its_name_is_a_property() -> None:
    for name in TEMPLATES:
        for resource in template(name)["Resources"].values():
            key = KINDS[resource["Type"]].name
            assert not key or key in resource["Properties"], resource["Type"]


def test_a_value_that_no_model_takes_is_refused_by_its_path() -> None:
    queue = Resource(
        stack="plant-data",
        logical="Topic",
        type="AWS::Scheduler::ScheduleGroup",
        properties={"Name": "a b", "Tags": [{"Key": "k", "Value": "v"}]},
        template={},
        name="a b",
    )
    (refusal,) = refusals(queue, PLACE)
    assert refusal.startswith("scheduler:CreateScheduleGroup .Name: 'a b' does not match")
