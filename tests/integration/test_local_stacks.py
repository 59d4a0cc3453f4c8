"""The local cloud stands on the templates that deploy."""

from __future__ import annotations

import json

import pytest
from support.paths import ROOT
from support.templates import resources

from fl_runtime.run.aws import client
from pipelines.aws.deploy import Stacks
from pipelines.aws.stack_specs import specs
from pipelines.local import stack
from pipelines.local.cloud import LocalCloud


def test_the_local_cloud_stands_on_the_shipped_templates(reached: LocalCloud) -> None:
    """Each resource that is not listed as missing from the emulators is there, under the name that
    the template gave it.
    """
    api = client("cloudformation")
    for spec in specs(reached.deployment, {}, reduce=stack.reduce):
        described = {
            r["LogicalResourceId"]: r
            for page in api.get_paginator("list_stack_resources").paginate(StackName=spec.name)
            for r in page["StackResourceSummaries"]
        }
        wanted = {name for name, r in spec.template["Resources"].items() if "Condition" not in r}
        assert wanted <= set(described)
        assert {r["ResourceStatus"] for r in described.values()} <= {
            "CREATE_COMPLETE",
            "UPDATE_COMPLETE",
        }


def test_what_the_emulator_refuses_is_just_what_is_listed(reached: LocalCloud) -> None:
    api = client("cloudformation")
    gaps = (ROOT / "pipelines" / "local" / "GAPS.md").read_text()
    for kind in stack.NOT_EMULATED:
        body = json.dumps({"Resources": {"One": {"Type": kind, "Properties": {}}}})
        with pytest.raises(api.exceptions.ClientError, match="Unrecognized resource types"):
            api.create_change_set(
                StackName="refused", ChangeSetName="c", ChangeSetType="CREATE", TemplateBody=body
            )
        assert f"`{kind}`" in gaps, f"GAPS.md does not say what covers {kind}"
        assert resources(kind), f"no template has {kind} any more"


def test_a_second_deployment_of_the_same_changes_nothing(reached: LocalCloud) -> None:
    d = reached.deployment
    stacks = Stacks(client("cloudformation"), client("s3"), d.code_bucket, poll_seconds=0.05)
    deployed = {
        p["ParameterKey"]: p["ParameterValue"]
        for p in client("cloudformation").describe_stacks(StackName=d.stacks[1])["Stacks"][0][
            "Parameters"
        ]
    }
    given = {
        key: deployed[key]
        for key in (
            "CodeKey",
            "MlflowTrackingUri",
            "FreshSeconds",
            "ImageTag",
            "FurtherPipelines",
        )
    }
    for spec in specs(d, given, reduce=stack.reduce):
        assert stacks.same(spec)
        assert stacks.plan(spec) == []
    changed = specs(d, {**given, "FreshSeconds": "77"}, reduce=stack.reduce)[1]
    assert not stacks.same(changed)
    assert {change.kind for change in stacks.plan(changed)} >= {
        "AWS::ECS::TaskDefinition",
        "AWS::Lambda::Function",
    }
