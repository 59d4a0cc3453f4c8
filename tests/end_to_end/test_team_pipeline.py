"""A federated step in a pipeline of a team's own name, beside the team's own steps."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from support.paths import APPS

from edge.training.app_bundle import load_app
from fl_runtime.run.aws import S3Objects
from fl_runtime.run.keys import rounds_prefix, run_id
from pipelines.local.cloud import LocalCloud
from pipelines.local.fleet import FleetClients, running_fleet
from pipelines.local.sagemaker.jobs.process import private_mounts
from pipelines.run.publication import upload
from pipelines.step.plain import federated_step_json, register_step_json

pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(not private_mounts(), reason="no private mounts on this kernel"),
]

FLEET, NAME = "team-fleet", "the_teams-own"
TEAM = "arn:aws:iam::123456789012:role/service-role/team"
"""A role of the team's account, which the local account lacks."""
CHOOSE = """
import json, pathlib
out = pathlib.Path("/opt/ml/processing/out")
(out / "choice.json").write_text(json.dumps({"training": {"rounds": 2, "fleet": "team-fleet"}}))
"""


def output(name: str) -> dict[str, str]:
    return {"Get": f"Steps.Train_It.OutputParameters['{name}']"}


def choose(bucket: str) -> dict[str, Any]:
    """A Processing step in script mode, whose property file holds the number of rounds."""
    code, out = "/opt/ml/processing/input/code", "/opt/ml/processing/out"
    place = {"S3Uri": f"s3://{bucket}/team/choose.py", "LocalPath": code}
    kept = {"S3Uri": f"s3://{bucket}/team/choice", "LocalPath": out}
    arguments = {
        "AppSpecification": {
            "ImageUri": "any",
            "ContainerEntrypoint": ["python3", f"{code}/choose.py"],
        },
        "ProcessingInputs": [{"InputName": "code", "S3Input": place}],
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": "choice", "S3Output": kept}]},
        "RoleArn": TEAM,
    }
    file = {"PropertyFileName": "Choice", "OutputName": "choice", "FilePath": "choice.json"}
    return {
        "Name": "Choose",
        "Type": "Processing",
        "Arguments": arguments,
        "PropertyFiles": [file],
    }


def chosen(path: str) -> dict[str, Any]:
    file = {"Get": "Steps.Choose.PropertyFiles.Choice"}
    return {"Std:JsonGet": {"PropertyFile": file, "Path": f"training.{path}"}}


def definition(cloud: LocalCloud) -> dict[str, Any]:
    """Choose -> Train_It -> GoodEnough -> Register_It, or fail; written in another order."""
    train = federated_step_json(
        "Train_It",
        app=APPS / "digits",
        deployment=cloud.deployment,
        min_devices=2,
        max_devices=2,
        rounds={"Get": "Parameters.Rounds"},
        fleet=FLEET,
        depends_on=["Choose"],
    )
    enough = {"Type": "GreaterThan", "LeftValue": chosen("rounds"), "RightValue": 1}
    is_model = {"Type": "Equals", "LeftValue": output("outcome"), "RightValue": "model"}
    register = register_step_json("Register_It", federated="Train_It", group="team", image="any:1")
    words = {"On": " ", "Values": ["only", output("value")]}
    failed = {
        "Name": "Too_Bad",
        "Type": "Fail",
        "Arguments": {"ErrorMessage": {"Std:Join": words}},
    }
    arguments = {
        "Conditions": [enough, is_model],
        "IfSteps": [register],
        "ElseSteps": [failed],
    }
    check = {"Name": "GoodEnough", "Type": "Condition", "Arguments": arguments}
    rounds = {"Name": "Rounds", "Type": "Integer", "DefaultValue": 2}
    return {"Parameters": [rounds], "Steps": [check, train, choose(cloud.deployment.bucket)]}


@pytest.fixture
def sagemaker(reached: LocalCloud) -> Iterator[Any]:
    """A SageMaker client, while the fleet stands and the pipeline is there."""
    objects = S3Objects(boto3.client("s3"), reached.deployment.bucket)
    app = load_app(APPS / "digits")
    upload(app, objects)
    objects.put("team/choose.py", CHOOSE.encode())
    client = boto3.client("sagemaker")
    wanted = {
        "PipelineName": NAME,
        "PipelineDefinition": json.dumps(definition(reached)),
        "RoleArn": TEAM,
    }
    if NAME in [p["PipelineName"] for p in client.list_pipelines()["PipelineSummaries"]]:
        client.update_pipeline(**wanted)
    else:
        client.create_pipeline(**wanted)
    clients = FleetClients(**{n: boto3.client(n) for n in ("iot", "kms", "dynamodb")})
    with running_fleet(reached, clients, FLEET, 2, app):
        yield client


def start(sagemaker: Any, rounds: int) -> str:
    parameters = [{"Name": "Rounds", "Value": str(rounds)}]
    started = sagemaker.start_pipeline_execution(PipelineName=NAME, PipelineParameters=parameters)
    return str(started["PipelineExecutionArn"])


def ended(sagemaker: Any, arn: str, seconds: float = 150.0) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found: dict[str, Any] = sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
        if found["PipelineExecutionStatus"] not in ("Executing", "Stopping"):
            return found
        time.sleep(0.3)
    raise AssertionError("the execution did not end")


def steps(sagemaker: Any, arn: str) -> dict[str, Any]:
    listed = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)
    return {step["StepName"]: step for step in listed["PipelineExecutionSteps"]}


def test_the_teams_steps_and_ours_end_with_a_registered_package(sagemaker: Any) -> None:
    arn = start(sagemaker, 2)
    found = ended(sagemaker, arn)
    assert found["PipelineExecutionStatus"] == "Succeeded", found.get("FailureReason")
    done = steps(sagemaker, arn)
    assert set(done) == {"Choose", "Train_It", "GoodEnough", "Register_It"}
    package = done["Register_It"]["Metadata"]["RegisterModel"]["Arn"]
    described = sagemaker.describe_model_package(ModelPackageName=package)
    given = done["Train_It"]["Metadata"]["Callback"]["OutputParameters"]
    outputs = {item["Name"]: item["Value"] for item in given}
    [container] = described["InferenceSpecification"]["Containers"]
    assert container["ModelDataUrl"] == outputs["model_data"]
    assert outputs["rounds"] == "2"


def test_a_pipeline_that_is_stopped_while_devices_train_ends_with_its_run(
    sagemaker: Any, reached: LocalCloud
) -> None:
    arn = start(sagemaker, 100)
    await_a_round(sagemaker, arn, reached.deployment.bucket)
    sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken="t" * 32)
    assert ended(sagemaker, arn)["PipelineExecutionStatus"] == "Stopped"
    assert steps(sagemaker, arn)["Train_It"]["StepStatus"] == "Stopped"
    again = start(sagemaker, 1)
    assert ended(sagemaker, again)["PipelineExecutionStatus"] == "Succeeded", "devices are free"


def await_a_round(sagemaker: Any, arn: str, bucket: str) -> None:
    """Wait until the federated step's run has finished a round."""
    s3, deadline = boto3.client("s3"), time.monotonic() + 90
    while time.monotonic() < deadline:
        metadata = steps(sagemaker, arn).get("Train_It", {}).get("Metadata", {})
        if metadata:
            prefix = rounds_prefix(run_id(metadata["Callback"]["CallbackToken"]))
            if s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents"):
                return
        time.sleep(0.3)
    raise AssertionError("the devices did not train")
