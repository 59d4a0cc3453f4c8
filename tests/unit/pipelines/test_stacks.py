"""What deploys: what the shipped templates promise, and what each part installs."""

from __future__ import annotations

import json
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from support.paths import ROOT
from support.templates import resources

from fl_runtime.run import cost
from pipelines.aws import metrics, state_machine
from pipelines.aws.pins import PARTS, pins
from pipelines.deployment import Deployment

D = Deployment(
    account="123456789012",
    region="eu-central-1",
    prefix="plant",
    subnets=("subnet-1",),
    security_groups=("sg-1",),
)


def lower(value: Any) -> Any:
    """Step Functions' PascalCase parameters as the API has them; references stand for any text."""
    if isinstance(value, dict):
        return {
            (k[0].lower() + k[1:]).removesuffix(".$"): "x" if k.endswith(".$") else lower(v)
            for k, v in value.items()
        }
    return [lower(item) for item in value] if isinstance(value, list) else value


def test_the_state_machines_task_parameters_fit_the_ecs_api() -> None:
    shape = (
        botocore.session.get_session()
        .get_service_model("ecs")
        .operation_model("RunTask")
        .input_shape
    )
    branches = state_machine.definition(D)["States"]["RunFederation"]["Branches"]
    for task in (
        branches[0]["States"]["Server"],
        branches[1]["States"]["Proxies"]["Iterator"]["States"]["Proxy"],
    ):
        report = ParamValidator().validate(lower(task["Parameters"]), shape)
        assert not report.has_errors(), report.generate_report()
    spot = branches[1]["States"]["Proxies"]["Iterator"]["States"]["Proxy"]["Parameters"][
        "CapacityProviderStrategy"
    ]
    assert spot[0] == {"CapacityProvider": "FARGATE_SPOT", "Weight": 1}


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
    assert len(kept) == 10
    assert all(resource["DeletionPolicy"] == "Retain" for resource in kept)


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


@pytest.mark.parametrize("part", PARTS)
def test_each_part_installs_the_locks_versions(part: str) -> None:
    from packaging.utils import canonicalize_name

    lock = {
        canonicalize_name(line.split("==")[0]): line.split("==")[1]
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    assert "msgspec" in {pin.split("==")[0] for pin in pins(part)}
    assert len(pins(part)) > 10, (
        "an extra that setup.cfg has and the environment does not: run make"
    )
    for pin in pins(part):
        name, version = pin.split("==")
        assert lock[name] == version, f"{pin} is not what requirements.lock says"


def test_a_proxy_and_a_device_need_no_torch_and_a_proxy_no_flower() -> None:
    names = {part: {pin.split("==")[0] for pin in pins(part)} for part in PARTS}
    assert not names["proxy"] & {"torch", "flwr", "mlflow", "sagemaker"}
    assert not names["device"] & {"torch", "boto3", "mlflow"}
    assert "flwr" in names["device"]
    assert "flwr" in names["server"]


def test_every_alarm_is_explained_to_the_operator() -> None:
    handbook = (ROOT / "docs" / "operate.md").read_text()
    for alarm in metrics.ALARMS:
        assert f"`{alarm.name}`" in handbook, (
            f"docs/operate.md does not say what to do about {alarm.name}"
        )


REACHED = {
    "dynamodb": "",
    "s3": "",
    "iot": "iot.data",
    "states": "states",
    "secretsmanager": "secretsmanager",
    "kms": "kms",
    "ecr": "ecr.api",
    "logs": "logs",
    "sagemaker-mlflow": "sagemaker.experiments",
}
"""The endpoint by which a task reaches a service; empty: a gateway."""


def test_tasks_reach_every_service_that_they_may_call() -> None:
    from pipelines.aws.policies import statements
    from pipelines.aws.stacks.network import ENDPOINTS

    called = {
        action.split(":")[0]
        for role in ("server", "proxy", "execution")
        for item in statements(role, D)
        for action in item["Action"]
    }
    assert called <= set(REACHED), "tasks have no way to the internet: give it an endpoint"
    assert {REACHED[service] for service in called} - {""} <= set(ENDPOINTS.values())
