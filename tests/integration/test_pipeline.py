"""The pipeline's definition, as the SDK writes it, against SageMaker's own shapes."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.exceptions import ClientError
from fakes.apps import write_app
from fakes.objects import MemoryObjects
from support import mixed_pipeline

import pipelines
from fl_runtime.run.aws import S3Objects
from fl_runtime.run.keys import app_key
from pipelines.deployment import Deployment
from pipelines.errors import DeployError, UsageError
from pipelines.local.sagemaker.definitions.conditions import holds
from pipelines.local.sagemaker.definitions.values import Scope
from pipelines.run.account import deployment_of
from pipelines.run.definition import definition
from pipelines.run.names import pipeline_name
from pipelines.run.publication import publish, upload
from pipelines.step import sdk
from pipelines.step.federated_step import FederatedStep
from pipelines.step.pipeline import build
from pipelines.step.plain import federated_step_json, register_step_json
from pipelines.step.register_step import RegisterStep

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
    """After a change of the pipeline or of an option: ``python -m pipelines.step``."""
    there = Deployment(account="111122223333", region=region, prefix="team")
    session = boto3.Session(region_name=region, aws_access_key_id="x", aws_secret_access_key="x")
    made = build(there, "wind_farm", sdk.session(there, session))
    assert json.loads(definition(there, "wind_farm")) == json.loads(made.definition())
    assert pipeline_name(there, "wind_farm") == made.name == "team-wind-farm"


def test_both_versions_of_the_sdk_make_the_same_of_a_teams_own_pipeline() -> None:
    """``make sdk3`` records version 3's, which cannot be installed beside version 2."""
    recorded = json.loads(mixed_pipeline.RECORDED.read_text())
    assert recorded["sdk"].startswith("3.")
    # Version 3 writes which MLflow server a pipeline uses, which is none here.
    assert {**mixed_pipeline.definition(), "MlflowConfig": None} == recorded["definition"]


def test_a_step_of_plain_json_is_what_the_sdk_writes() -> None:
    steps = {step["Name"]: step for step in mixed_pipeline.definition()["Steps"]}
    plain = federated_step_json(
        "Tuned",
        app=mixed_pipeline.APP,
        deployment=mixed_pipeline.D,
        fleet={"Get": "Parameters.Farm"},
        rounds={"Get": "Parameters.Rounds"},
        settings={
            "batch-size": 32,
            "learning-rate": {"Get": "Parameters.Rate"},
            "strategy.eta": 0.5,
        },
        depends_on=["Prepare"],
    )
    assert plain == steps["Tuned"]
    registered = register_step_json(
        "Register",
        federated="train_again",
        group="wind-farm",
        image="111122223333.dkr.ecr/serve:1",
    )
    assert registered == steps["GoodEnough"]["Arguments"]["IfSteps"][0]


def test_the_sdks_own_model_step_registers_the_same_package() -> None:
    """For teams that have a ModelStep already: the step's metadata makes the link."""
    from sagemaker.model import Model
    from sagemaker.workflow.model_step import ModelStep

    session = sdk.session(D, SESSION)
    train = FederatedStep("Train", app=mixed_pipeline.APP, deployment=D)
    outputs = train.properties.Outputs
    model = Model(
        image_uri="x/y:1", model_data=outputs["model_data"], sagemaker_session=session, role="none"
    )
    package = model.register(
        content_types=["application/json"],
        response_types=["application/json"],
        inference_instances=["ml.m5.large"],
        transform_instances=["ml.m5.large"],
        model_package_group_name="wind-farm",
        approval_status="PendingManualApproval",
        customer_metadata_properties=train.metadata,
    )
    theirs = ModelStep("Register", step_args=package).steps[-1].to_request()["Arguments"]
    ours = train.register(group="wind-farm", image="x/y:1").to_request()["Arguments"]
    assert isinstance(train.register(image="x/y:1"), RegisterStep)
    assert {**theirs, "ModelMetrics": None} == {**ours, "ModelMetrics": None}


def test_the_app_goes_to_the_bucket_when_the_definition_is_made(tmp_path: Path) -> None:
    app, sent = write_app(tmp_path / "hall"), []

    class Session:
        region_name = D.region

        def client(self, service: str) -> Any:
            return SimpleNamespace(put_object=lambda **request: sent.append((service, request)))

    step = FederatedStep("Train", app=app.folder, deployment=D, session=Session())
    assert sent == []
    step.to_request()
    step.to_request()
    ((service, request),) = sent
    assert (service, request["Bucket"], request["Key"], request["Body"]) == (
        "s3",
        D.bucket,
        app_key(app.digest()),
        app.bundle(),
    )
    quiet = FederatedStep("T", app=app, deployment=D, session=Session(), upload_app=False)
    quiet.to_request()
    assert len(sent) == 1


def test_a_refused_upload_says_what_was_to_go_where(tmp_path: Path) -> None:
    denied = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutObject")

    def refuse(**request: Any) -> None:
        raise denied

    objects = S3Objects(SimpleNamespace(put_object=refuse), D.bucket)
    with pytest.raises(UsageError, match=r"hall could not be uploaded to s3://mledgeops-.*/apps/"):
        upload(write_app(tmp_path / "hall"), objects)


def test_a_step_completes_its_options_and_finds_its_deployment() -> None:
    names = list(inspect.signature(FederatedStep).parameters)
    assert names[:3] == ["name", "app", "deployment"]
    assert {"devices", "rounds", "fleet", "settings", "min_devices", "run_config"} <= set(names)
    who = SimpleNamespace(get_caller_identity=lambda: {"Account": "222233334444"})
    session = SimpleNamespace(region_name="eu-west-1", client=lambda service, config: who)
    step = FederatedStep("Train", app=mixed_pipeline.APP, session=session)
    assert step.deployment == Deployment(account="222233334444", region="eu-west-1")
    assert deployment_of(session) == step.deployment
    session.region_name = None
    with pytest.raises(UsageError, match="No AWS region is set"):
        FederatedStep("Train", app=mixed_pipeline.APP, session=session)


def test_the_package_gives_its_names_when_they_are_first_used() -> None:
    assert pipelines.FederatedStep is FederatedStep
    assert {"FederatedStep", "federated_step_json"} <= set(dir(pipelines))
    with pytest.raises(AttributeError, match="no attribute 'FederatedSteps'"):
        pipelines.FederatedSteps  # noqa: B018


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
    app = SimpleNamespace(name="wind_farm", bundle=lambda: b"zip", digest=lambda: "a" * 64)
    plan: Any = SimpleNamespace(app=app)
    clients: Any = SimpleNamespace(objects=objects, sagemaker=sagemaker)
    assert publish(plan, D, clients) == "mledgeops-wind-farm"
    sagemaker.pipelines["mledgeops-wind-farm"] = "an older definition"
    publish(plan, D, clients)
    assert objects.data == {app_key("a" * 64): b"zip"}
    assert sagemaker.pipelines == {"mledgeops-wind-farm": definition(D, "wind_farm")}
