"""The pipeline's definition, as the SDK writes it, against SageMaker's own shapes."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.exceptions import ClientError
from fakes.objects import MemoryObjects

from fl_runtime.run.keys import app_key
from pipelines.deployment import Deployment
from pipelines.errors import DeployError
from pipelines.local.sagemaker.values import Scope, holds
from pipelines.run import sdk
from pipelines.run.definition import definition
from pipelines.run.names import pipeline_name
from pipelines.run.pipeline import build
from pipelines.run.publication import publish

D = Deployment(account="000000000000", region="us-east-1")
SESSION = boto3.Session(region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")


@pytest.fixture(scope="module")
def pipeline_document() -> dict:
    return json.loads(build(D, "wind_farm", sdk.session(D, SESSION)).definition())


def test_the_pipeline_is_callback_conditions_register_fail(pipeline_document: dict) -> None:
    run, good, worse = pipeline_document["Steps"]
    assert (run["Type"], good["Type"], worse["Type"]) == ("Callback", "Condition", "Condition")
    assert [step["Type"] for step in good["Arguments"]["IfSteps"]] == ["RegisterModel", "Lambda"]
    assert [step["Type"] for step in worse["Arguments"]["IfSteps"]] == ["Lambda", "Fail"]
    assert len(run["OutputParameters"]) <= 50
    declared = {p["Name"] for p in pipeline_document["Parameters"]}
    used = {value["Get"].removeprefix("Parameters.") for value in run["Arguments"].values()}
    assert used <= declared


@pytest.mark.parametrize(
    ("outcome", "score", "champion", "taken"),
    [
        ("model", 0.5, -1e300, "GoodEnough"),
        ("model", 0.5, 0.5, "GoodEnough"),
        ("model", 0.5, 0.6, "NotBetter"),
        ("model", -0.5, -1e300, "NotBetter"),
        ("analysis", -1e300, -1e300, ""),
    ],
)
def test_a_run_takes_one_branch_and_an_analysis_none(
    pipeline_document: dict, outcome: str, score: float, champion: float, taken: str
) -> None:
    scope = Scope({"MinimumScore": 0.0}, "arn/execution/1", "p")
    outputs = {"outcome": outcome, "score": score, "champion_score": champion}
    scope.outputs["FederatedRun"] = {"OutputParameters": outputs}
    met = [
        step["Name"]
        for step in pipeline_document["Steps"][1:]
        if all(holds(condition, scope) for condition in step["Arguments"]["Conditions"])
    ]
    assert met == ([taken] if taken else [])
    assert not any(step["Arguments"]["ElseSteps"] for step in pipeline_document["Steps"][1:])


def test_the_registered_package_fits_sagemakers_api(pipeline_document: dict) -> None:
    """The step's arguments, with references filled in, against botocore's own shapes."""
    model = (
        botocore.session.get_session()
        .get_service_model("sagemaker")
        .operation_model("CreateModelPackage")
        .input_shape
    )

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return (
                "s3://bucket/key"
                if set(value) == {"Get"}
                else {key: fill(item) for key, item in value.items() if item != {}}
            )
        return [fill(item) for item in value] if isinstance(value, list) else value

    arguments = fill(pipeline_document["Steps"][1]["Arguments"]["IfSteps"][0]["Arguments"])
    report = botocore.validate.ParamValidator().validate(arguments, model)
    assert not report.has_errors(), report.generate_report()
    assert arguments["ModelApprovalStatus"] == "PendingManualApproval"


def test_the_pipeline_fails_with_the_refuse_steps_sentence(pipeline_document: dict) -> None:
    refuse, below = pipeline_document["Steps"][2]["Arguments"]["IfSteps"]
    assert (refuse["Name"], below["Name"]) == ("Refuse", "BelowBar")
    assert set(refuse["Arguments"]) == {
        "run",
        "mlflow_run_id",
        "metric",
        "value",
        "score",
        "champion_score",
        "minimum_score",
    }
    message = below["Arguments"]["ErrorMessage"]["Std:Join"]["Values"]
    assert message == [{"Get": "Steps.Refuse.OutputParameters['reason']"}]


@pytest.mark.parametrize("region", ["us-east-1", "us-gov-west-1"])
def test_the_definition_that_the_package_carries_is_the_sdks(region: str) -> None:
    """After a change of the pipeline or of an option: ``python -m pipelines.run.definition``."""
    there = Deployment(account="111122223333", region=region, prefix="team")
    session = boto3.Session(region_name=region, aws_access_key_id="x", aws_secret_access_key="x")
    made = build(there, "wind_farm", sdk.session(there, session))
    assert json.loads(definition(there, "wind_farm")) == json.loads(made.definition())
    assert pipeline_name(there, "wind_farm") == made.name == "team-wind-farm"


def test_a_region_without_the_container_is_refused() -> None:
    nowhere = Deployment(account="111122223333", region="nowhere-1")
    with pytest.raises(DeployError, match="no PyTorch inference container in nowhere-1"):
        definition(nowhere, "wind_farm")


class SageMaker:
    """Keeps pipelines as SageMaker does: only one that exists can be updated."""

    def __init__(self) -> None:
        self.pipelines: dict[str, str] = {}

    def create_pipeline(self, PipelineName: str, PipelineDefinition: str, RoleArn: str) -> None:
        assert PipelineName not in self.pipelines
        self.pipelines[PipelineName] = PipelineDefinition

    def update_pipeline(self, PipelineName: str, PipelineDefinition: str, RoleArn: str) -> None:
        if PipelineName not in self.pipelines:
            raise ClientError({"Error": {"Code": "ResourceNotFound"}}, "UpdatePipeline")
        self.pipelines[PipelineName] = PipelineDefinition


def test_publishing_uploads_the_app_and_creates_or_updates_its_pipeline() -> None:
    objects, sagemaker = MemoryObjects(), SageMaker()
    app = SimpleNamespace(name="wind_farm", bundle=lambda: b"zip")
    plan: Any = SimpleNamespace(app=app, app_digest="a" * 64)
    clients: Any = SimpleNamespace(objects=objects, sagemaker=sagemaker)
    assert publish(plan, D, clients) == "mledgeops-wind-farm"
    sagemaker.pipelines["mledgeops-wind-farm"] = "an older definition"
    publish(plan, D, clients)
    assert objects.data == {app_key("a" * 64): b"zip"}
    assert sagemaker.pipelines == {"mledgeops-wind-farm": definition(D, "wind_farm")}
