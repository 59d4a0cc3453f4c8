"""Stacks are planned, created, changed and deleted by change sets; failures give their reason."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.clock import Clock

from pipelines.aws import stack_state
from pipelines.aws.change_sets import BODY_LIMIT
from pipelines.aws.deploy import Stacks
from pipelines.aws.stack_specs import TEMPLATES, StackSpec, specs, template
from pipelines.deployment import Deployment
from pipelines.errors import DeployError

D = Deployment(account="123456789012", region="eu-central-1", prefix="plant")


class _Refused(Exception):
    pass


class CloudFormation:
    """Stacks in a dictionary; a change takes one poll."""

    exceptions = SimpleNamespace(ClientError=_Refused)
    meta = SimpleNamespace(region_name="eu-central-1")

    def __init__(self, *, fails: str = "", hangs: bool = False) -> None:
        self.stacks: dict[str, dict[str, Any]] = {}
        self.sets: dict[str, dict[str, Any]] = {}
        self.fails, self.hangs = fails, hangs

    def describe_stacks(self, StackName: str) -> dict[str, Any]:
        if StackName not in self.stacks:
            raise _Refused(f"Stack with id {StackName} does not exist")
        stack = self.stacks[StackName]
        status, stack["status"] = stack["status"], stack["status"] if self.hangs else stack["next"]
        parameters = [
            {"ParameterKey": k, "ParameterValue": v} for k, v in stack.get("parameters", {}).items()
        ]
        return {"Stacks": [{"StackStatus": status, "Parameters": parameters}]}

    def create_change_set(self, **given: Any) -> None:
        name = given["StackName"]
        self.sets[given["ChangeSetName"]] = given
        self.stacks.setdefault(name, {"status": "REVIEW_IN_PROGRESS", "next": "REVIEW_IN_PROGRESS"})

    def describe_change_set(self, StackName: str, ChangeSetName: str) -> dict[str, Any]:
        body = self.sets[ChangeSetName].get("TemplateBody")
        if body is not None and self.stacks[StackName].get("body") == body:
            return {
                "Status": "FAILED",
                "StatusReason": "The submitted information didn't contain changes.",
            }
        if self.fails == "refused":
            return {"Status": "FAILED", "StatusReason": "no such type"}
        return {"Status": "CREATE_COMPLETE"}

    def get_paginator(self, name: str) -> Any:
        if name == "describe_stack_events":
            return SimpleNamespace(paginate=self._events)
        if name == "describe_events":
            found = {"LogicalResourceId": "Bucket", "ValidationStatusReason": "its name is taken."}
            return SimpleNamespace(
                paginate=lambda **_: iter([{"OperationEvents": [{}]}, {"OperationEvents": [found]}])
            )
        change = {"Action": "Add", "LogicalResourceId": "Bucket", "ResourceType": "AWS::S3::Bucket"}
        return SimpleNamespace(
            paginate=lambda **_: iter([{"Changes": [{"ResourceChange": change}]}])
        )

    def execute_change_set(self, ChangeSetName: str, StackName: str) -> None:
        stack, given = self.stacks[StackName], self.sets[ChangeSetName]
        ended = "ROLLBACK_COMPLETE" if self.fails in ("create", "invalid") else "CREATE_COMPLETE"
        parameters = {
            p["ParameterKey"]: p["ParameterValue"]
            for p in given["Parameters"]
            if "ParameterValue" in p
        }
        stack.update(
            status="CREATE_IN_PROGRESS",
            next=ended,
            body=given.get("TemplateBody"),
            parameters={**stack.get("parameters", {}), **parameters},
        )

    def delete_change_set(self, StackName: str, ChangeSetName: str) -> None:
        del self.sets[ChangeSetName]

    def delete_stack(self, StackName: str) -> None:
        del self.stacks[StackName]

    def get_template(self, StackName: str) -> dict[str, Any]:
        return {"TemplateBody": self.stacks[StackName]["body"]}

    def _events(self, StackName: str) -> Iterator[dict[str, Any]]:
        first = "Call DescribeEvents" if self.fails == "invalid" else "it exists already."
        for name, reason in (("B", "Resource creation cancelled"), ("A", first)):
            event = {"ResourceStatus": "CREATE_FAILED", "ResourceStatusReason": reason}
            yield {"StackEvents": [{"LogicalResourceId": name, **event}]}


class S3:
    def __init__(self) -> None:
        self.keys: list[str] = []

    def put_object(self, Bucket: str, Key: str, Body: bytes) -> None:
        self.keys.append(Key)


def made(api: CloudFormation, s3: S3 | None = None) -> Stacks:
    clock = Clock()
    return Stacks(api, s3 or S3(), "code", clock=clock, sleep=clock.sleep)


def spec(**template: Any) -> StackSpec:
    given = {"Parameters": {"Prefix": {}, "Old": {}}, "Resources": {}, **template}
    return StackSpec(name="plant-base", template=given, parameters={"Prefix": "plant", "X": "1"})


@pytest.fixture
def api() -> Iterator[CloudFormation]:
    yield CloudFormation()


def test_a_plan_changes_nothing(api: CloudFormation) -> None:
    (change,) = made(api).plan(spec())
    assert (change.action, change.resource, change.kind) == ("Add", "Bucket", "AWS::S3::Bucket")
    assert (api.stacks, api.sets) == ({}, {})


def test_a_stack_is_created_and_then_stands_as_specified(api: CloudFormation) -> None:
    stacks = made(api)
    assert len(stacks.apply(spec())) == 1
    assert stacks.status("plant-base") == "CREATE_COMPLETE"
    assert stacks.same(spec())
    assert stacks.apply(spec()) == [], "an empty change set is no change"
    assert not stacks.same(spec(Resources={"More": {}}))


def test_parameters_that_are_not_given_keep_their_values(api: CloudFormation) -> None:
    stacks = made(api)
    stacks.apply(spec())
    api.stacks["plant-base"]["parameters"]["Old"] = "kept"
    stacks.plan(spec(Resources={"More": {}}))
    kept: list[Any] = []
    api.create_change_set = lambda **given: (
        kept.extend(given["Parameters"]),
        CloudFormation.create_change_set(api, **given),
    )  # type: ignore[method-assign,misc]
    stacks.plan(spec(Resources={"More": {}}))
    assert {"ParameterKey": "Old", "UsePreviousValue": True} in kept


def test_a_large_template_goes_by_s3(api: CloudFormation) -> None:
    s3 = S3()
    made(api, s3).plan(spec(Description="x" * BODY_LIMIT))
    assert s3.keys[0].startswith("templates/")


def test_a_failure_gives_the_first_reason() -> None:
    with pytest.raises(DeployError, match="ended as ROLLBACK_COMPLETE: A: it exists already"):
        made(CloudFormation(fails="create")).apply(spec())
    with pytest.raises(DeployError, match="ROLLBACK_COMPLETE: Bucket: its name is taken"):
        made(CloudFormation(fails="invalid")).apply(spec())


def test_a_refused_change_gives_its_reason() -> None:
    api = CloudFormation(fails="refused")
    with pytest.raises(DeployError, match="refuses the change of plant-base: no such type"):
        made(api).apply(spec())
    assert api.stacks == {}, "the empty stack that the change set created is gone again"


def test_a_stack_that_was_rolled_back_is_not_changed(api: CloudFormation) -> None:
    api.stacks["plant-base"] = {"status": "ROLLBACK_COMPLETE", "next": "ROLLBACK_COMPLETE"}
    with pytest.raises(
        DeployError, match=r"delete-stack --stack-name plant-base\), and deploy again"
    ):
        made(api).plan(spec())


def test_waiting_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_state, "STACK_SECONDS", 60.0)
    with pytest.raises(DeployError, match="did not settle within 1 minutes"):
        made(CloudFormation(hangs=True)).apply(spec())


def test_deleting_is_idempotent(api: CloudFormation) -> None:
    stacks = made(api)
    stacks.apply(spec())
    for _ in range(2):
        stacks.delete("plant-base")
    assert stacks.status("plant-base") is None


def test_the_three_stacks_are_specified_in_order() -> None:
    found = specs(D, {"ImageTag": "v1"})
    assert [s.name for s in found] == list(D.stacks)
    assert {"ParameterKey": "ImageTag", "ParameterValue": "v1"} in found[1].arguments()
    assert "ImageTag" not in {a["ParameterKey"] for a in found[0].arguments()}
    assert found[0].body == found[0].body
    assert all(template(name)["Resources"] for name in TEMPLATES)
    with pytest.raises(DeployError, match="no parameter Colour"):
        specs(D, {"Colour": "blue"})
