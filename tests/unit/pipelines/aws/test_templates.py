"""What the shipped templates promise."""

from __future__ import annotations

import json

from support.paths import ROOT
from support.templates import resources

from fl_runtime.run import cost
from pipelines.aws import metrics


def test_nothing_that_holds_data_is_deleted_with_its_stack() -> None:
    kept = [
        *resources("AWS::S3::Bucket"),
        *resources("AWS::ECR::Repository"),
        *resources("AWS::KMS::Key"),
        *resources("AWS::SageMaker::ModelPackageGroup"),
    ]
    kept += [
        t
        for t in resources("AWS::DynamoDB::Table")
        if t["Properties"].get("DeletionProtectionEnabled")
    ]
    assert len(kept) == 11
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
