"""The pipeline's definition, as the SDK writes it, against SageMaker's own shapes."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import boto3
import botocore.session
import pytest
from fakes.objects import MemoryObjects

from fl_runtime.run.keys import app_key
from pipelines.deployment import Deployment
from pipelines.run import publication, sdk
from pipelines.run.pipeline import build

D = Deployment(account="000000000000", region="us-east-1")
SESSION = boto3.Session(region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")


@pytest.fixture(scope="module")
def pipeline_document() -> dict:
    return json.loads(build(D, "wind_farm", sdk.session(D, SESSION)).definition())


def test_the_pipeline_is_callback_condition_register_fail(pipeline_document: dict) -> None:
    run, good = pipeline_document["Steps"]
    assert (run["Type"], good["Type"]) == ("Callback", "Condition")
    assert [step["Type"] for step in good["Arguments"]["IfSteps"]] == ["RegisterModel", "Lambda"]
    assert [step["Type"] for step in good["Arguments"]["ElseSteps"]] == ["Lambda", "Fail"]
    assert len(run["OutputParameters"]) <= 50
    declared = {p["Name"] for p in pipeline_document["Parameters"]}
    used = {value["Get"].removeprefix("Parameters.") for value in run["Arguments"].values()}
    assert used <= declared


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
    refuse, below = pipeline_document["Steps"][1]["Arguments"]["ElseSteps"]
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


def test_publishing_uploads_the_app_and_its_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    objects, published = MemoryObjects(), []
    monkeypatch.setattr(sdk, "publish", lambda pipeline, _: published.append(pipeline.name))
    app = SimpleNamespace(name="wind_farm", bundle=lambda: b"zip")
    plan: Any = SimpleNamespace(app=app, app_digest="a" * 64)
    clients: Any = SimpleNamespace(objects=objects, session=SESSION)
    pipeline = publication.publish(plan, D, clients)
    assert objects.data == {app_key("a" * 64): b"zip"}
    assert published == [pipeline.name] == ["mledgeops-wind-farm"]
