"""``mledgeops deploy`` and ``destroy``: against a second deployment in the emulator, where no
account is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import mledgeops

from fl_runtime.run.aws import client
from pipelines.aws import deploy as stacks_module
from pipelines.aws.deploy import Stacks
from pipelines.aws.stack_specs import specs
from pipelines.cli.commands.operate import deploy, destroy
from pipelines.cli.main import main
from pipelines.local import stack
from pipelines.local.cloud import LocalCloud


def test_synth_writes_all_that_a_deployment_needs_and_calls_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    done = mledgeops(
        "deploy",
        "--synth",
        str(tmp_path),
        "--set",
        "AlarmEmail=night@example.org",
        "--json",
        home=tmp_path / "home",
    )
    written = json.loads(done.stdout)
    assert all(
        Path(file).is_file()
        for file in (*written["templates"], written["functions"], written["wheel"])
    )
    assert (
        json.loads((tmp_path / "parameters.json").read_text())["AlarmEmail"] == "night@example.org"
    )
    assert {"server.Dockerfile", "proxy.Dockerfile", "server.txt", "proxy.txt", "device.txt"} <= {
        file.name for file in (tmp_path / "images").iterdir()
    }
    assert "torch" not in (tmp_path / "images" / "proxy.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("deploy", "--synth", "x", "--set", "Colour=blue"), "no parameter Colour"),
        (("deploy", "--synth", "x", "--set", "AlarmEmail"), "not PARAMETER=VALUE"),
        (("deploy", "--plan", "--set", "Prefix=plant"), "MLEDGEOPS_PREFIX"),
        (("deploy",), "--synth"),
        (("deploy", "--plan", "--set", "Architecture=VAX"), "ARM64 or X86_64"),
        (("destroy",), "repeat it with --yes"),
        (("run", "notebooks/apps/digits", "--cloud", "moon"), "moon"),
        (("component", "nowhere"), "nowhere"),
        (("devices", "expect", "a/b", "--fleet", "f"), "a/b"),
        (("component", "agent", "--version", "one"), "ComponentVersion"),
        (("component", "agent", "--architecture", "VAX", "--out", "x"), "ARM64 or X86_64"),
    ],
)
def test_bad_usage_is_told_in_one_sentence(
    arguments: tuple[str, ...],
    said: str,
    reached: LocalCloud,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = Path("notebooks/apps/digits").resolve()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLEDGEOPS_HOME", str(reached.home.root))
    assert main([str(app) if item == "notebooks/apps/digits" else item for item in arguments]) == 2
    said_lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(said_lines) == 1
    assert said in said_lines[0]


def test_without_credentials_or_deployment_the_aws_way_says_so(
    tmp_path: Path, reached: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLEDGEOPS_PREFIX", "elsewhere")
    done = mledgeops("run", "notebooks/apps/digits", "--cloud", "aws", home=tmp_path, check=2)
    assert "not deployed" in done.stderr
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_REGION", raising=False)
    assert "No AWS region" in mledgeops("deploy", "--plan", home=tmp_path, check=2).stderr


@pytest.fixture
def plant(
    reached: LocalCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., int]:
    """The command line on a deployment named ``plant`` in the emulator, which takes the templates
    without the types it lacks.
    """
    monkeypatch.setenv("MLEDGEOPS_PREFIX", "plant")
    monkeypatch.setattr(
        deploy, "specs", lambda d, parameters: specs(d, parameters, reduce=stack.reduce)
    )
    monkeypatch.setattr(deploy, "_dependencies", lambda folder, _: folder)
    # The emulator's EC2 lists few endpoint services.
    monkeypatch.setattr(deploy, "zones_with_all", lambda *_, **__: ["us-east-1b", "us-east-1c"])
    monkeypatch.setattr(
        stacks_module.Stacks.__init__,
        "__kwdefaults__",
        {**stacks_module.Stacks.__init__.__kwdefaults__, "poll_seconds": 0.05},
    )
    return lambda *arguments: main(list(arguments))


def test_a_deployment_is_planned_made_changed_and_destroyed_without_its_data(
    plant: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ran(*arguments: str) -> dict[str, Any]:
        assert plant(*arguments, "--json") == 0
        return json.loads(capsys.readouterr().out)

    stacks = Stacks(client("cloudformation"), client("s3"), "plant-code-000000000000-us-east-1")
    mlflow = ("--set", "MlflowTrackingUri=http://mlflow.plant.example")
    planned = ran("deploy", "--plan", *mlflow)["changes"]
    assert {change["stack"] for change in planned} == {
        "plant-base",
        "plant-data",
        "plant-sagemaker",
    }
    assert stacks.status("plant-base") is None
    made = ran("deploy", "--apply", *mlflow)["changes"]
    assert {change["action"] for change in made} == {"Add"}
    subnets = client("ec2").describe_subnets()["Subnets"]
    ours = [s["AvailabilityZone"] for s in subnets if s["CidrBlock"].startswith("10.61.")]
    assert {"us-east-1b", "us-east-1c"} <= set(ours)
    assert len(made) == len(planned)
    assert ran("deploy", "--plan", *mlflow)["changes"] == []
    changed = ran("deploy", "--apply", "--set", "FreshSeconds=120")["changes"]
    assert {change["action"] for change in changed} == {"Modify"}
    environment = client("lambda").get_function_configuration(FunctionName="plant-discover")[
        "Environment"
    ]["Variables"]
    assert environment["MLEDGEOPS_FRESH_SECONDS"] == "120"
    assert environment["MLFLOW_TRACKING_URI"] == "http://mlflow.plant.example"
    assert ran("deploy", "--apply")["changes"] == [], (
        "what was chosen stays, where nothing else is said"
    )
    iot = client("iot")
    certificate = iot.create_keys_and_certificate(setAsActive=True)["certificateArn"]
    iot.create_thing(thingName="press-kept", thingTypeName="plant-device")
    iot.attach_thing_principal(thingName="press-kept", principal=certificate)
    iot.attach_policy(policyName="plant-device", target=certificate)
    kept = ran("destroy", "--yes")["kept"]
    assert iot.list_attached_policies(target=certificate)["policies"] == []
    assert {line.split()[0] for line in kept} >= {
        "AWS::S3::Bucket",
        "AWS::DynamoDB::Table",
        "AWS::KMS::Key",
        "AWS::ECR::Repository",
    }
    assert stacks.status("plant-data") is None
    client("s3").head_bucket(Bucket="plant-000000000000-us-east-1")
    assert ran("destroy", "--yes")["kept"] == []
    trusted = client("kms").get_public_key(KeyId="alias/plant-commands")["PublicKey"]
    # As far as the emulator goes: it does not take over repositories, nor, since it holds their
    # names against the stack, buckets. A type that things have stays, as if it had been taken over.
    for kind in ("AWS::IoT::ThingType", "AWS::IoT::ThingGroup"):
        monkeypatch.setitem(stack.NOT_EMULATED, kind, "taken over")
    for task in ("server", "proxy"):
        client("ecr").delete_repository(repositoryName=f"plant-{task}", force=True)
    for bucket in ("plant-000000000000-us-east-1", "plant-code-000000000000-us-east-1"):
        destroy._delete_bucket(client("s3"), bucket)
    ran("deploy", "--apply", *mlflow)
    again = client("kms").get_public_key(KeyId="alias/plant-commands")["PublicKey"]
    assert again == trusted, "enrolled devices believe the key that they know"
    (policy,) = iot.list_attached_policies(target=certificate)["policies"]
    assert policy["policyName"] == "plant-device", "enrolled devices connect again"
    for _ in range(2):
        ran("destroy", "--yes", "--data-too")
    assert not [b for b in client("s3").list_buckets()["Buckets"] if b["Name"].startswith("plant")]
    tables = client("dynamodb").list_tables()["TableNames"]
    assert not [name for name in tables if name.startswith("plant")]
