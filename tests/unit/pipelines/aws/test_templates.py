"""What the shipped templates promise."""

from __future__ import annotations

import json

from support.paths import ROOT
from support.templates import resources

from fl_runtime.run import cost
from pipelines.aws import metrics
from pipelines.aws.stack_specs import TEMPLATES, template


def test_nothing_that_holds_data_is_deleted_with_its_stack() -> None:
    kept = [
        *resources("AWS::S3::Bucket"),
        *resources("AWS::ECR::Repository"),
        *resources("AWS::KMS::Key"),
        *resources("AWS::IoT::ThingType"),
        *resources("AWS::IoT::ThingGroup"),
    ]
    kept += [
        t
        for t in resources("AWS::DynamoDB::Table")
        if t["Properties"].get("DeletionProtectionEnabled")
    ]
    assert len(kept) == 12
    assert all(resource["DeletionPolicy"] == "RetainExceptOnCreate" for resource in kept)


def test_data_is_encrypted_by_our_key_wherever_it_rests() -> None:
    assert all(
        "KMSMasterKeyID" in json.dumps(r["Properties"]["BucketEncryption"])
        for r in resources("AWS::S3::Bucket")
    )
    assert all(
        "KMSMasterKeyId" in r["Properties"]["SSESpecification"]
        for r in resources("AWS::DynamoDB::Table")
    )
    assert all("KmsMasterKeyId" in r["Properties"] for r in resources("AWS::SQS::Queue"))
    assert all(
        "KmsKeyId" in r["Properties"] and r["Properties"]["RetentionInDays"]
        for r in resources("AWS::Logs::LogGroup")
    )


def test_tasks_run_without_root_on_a_read_only_file_system() -> None:
    for definition in resources("AWS::ECS::TaskDefinition"):
        container = definition["Properties"]["ContainerDefinitions"][0]
        assert container["ReadonlyRootFilesystem"] is True
        assert container["User"] == "10001"


def test_the_cost_estimate_knows_the_tasks_as_they_deploy() -> None:
    sizes = {
        r["Properties"]["Family"]["Fn::Join"][1][1]: r["Properties"]
        for r in resources("AWS::ECS::TaskDefinition")
    }
    for family, (vcpu, memory) in (("-server", cost.SERVER), ("-proxy", cost.PROXY)):
        assert (int(sizes[family]["Cpu"]) / 1024, int(sizes[family]["Memory"]) / 1024) == (
            vcpu,
            memory,
        )


def test_every_alarm_is_explained_to_the_operator() -> None:
    handbook = (ROOT / "docs" / "operate.md").read_text()
    for alarm in metrics.ALARMS:
        assert f"`{alarm.name}`" in handbook, (
            f"docs/operate.md does not say what to do about {alarm.name}"
        )


def test_a_second_deployment_beside_the_first_shares_no_name_with_it() -> None:
    names = {
        (kind, key): value
        for name in TEMPLATES
        for identifier, resource in template(name)["Resources"].items()
        for kind in [f"{resource['Type']} {identifier}"]
        for key, value in resource["Properties"].items()
        if key in NAMED.get(resource["Type"], (f"{resource['Type'].rsplit('::')[2]}Name", "Name"))
    }
    assert len(names) > 40
    unprefixed = [what for what, value in names.items() if '"Prefix"' not in json.dumps(value)]
    # A zone is private to its network, and is named like AWS's own host.
    assert [what for what in unprefixed if "Route53" not in what[0]] == []
    secrets = [
        str(statement["Resource"])
        for role in resources("AWS::IAM::Role")
        for policy in role["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        if "secretsmanager" in str(statement["Action"])
    ]
    assert len(secrets) == 2
    assert all("'Ref': 'Prefix'" in resource for resource in secrets)


NAMED = {
    "AWS::DynamoDB::Table": ("TableName",),
    "AWS::ECS::Cluster": ("ClusterName",),
    "AWS::IAM::Role": ("RoleName",),
    "AWS::Lambda::Function": ("FunctionName",),
    "AWS::SageMaker::ModelPackageGroup": ("ModelPackageGroupName",),
    "AWS::StepFunctions::StateMachine": ("StateMachineName",),
}
"""The property with the name where it is not called after the type's last word."""
