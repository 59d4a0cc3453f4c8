"""Steps as plain JSON, for definitions that no SDK writes."""

from __future__ import annotations

import re

import botocore.session
import pytest

from pipelines.deployment import Deployment
from pipelines.errors import UsageError
from pipelines.local.sagemaker.definitions.values import Scope
from pipelines.run.names import FLOAT_OUTPUTS, STRING_OUTPUTS
from pipelines.step.arguments import PublishedApp
from pipelines.step.plain import (
    check_name,
    federated_step_json,
    group_of,
    output_json,
    register_step_json,
)

D = Deployment(account="111122223333", region="eu-central-1", prefix="team")
APP = PublishedApp(digest="a" * 64, name="wind_farm")


def test_a_step_is_a_callback_to_the_deployments_queue() -> None:
    step = federated_step_json(
        "Train_1", app=APP, deployment=D, depends_on=["Prepare"], rounds={"Get": "Parameters.N"}
    )
    assert (step["Name"], step["Type"], step["DependsOn"]) == ("Train_1", "Callback", ["Prepare"])
    assert step["SqsQueueUrl"] == (
        "https://sqs.eu-central-1.amazonaws.com/111122223333/team-callbacks"
    )
    assert step["Arguments"]["num_rounds"] == {"Get": "Parameters.N"}
    assert [o["OutputName"] for o in step["OutputParameters"]] == [*STRING_OUTPUTS, *FLOAT_OUTPUTS]
    assert "DependsOn" not in federated_step_json("Train", app=APP, deployment=D)


def test_a_registration_fits_sagemakers_api_once_the_run_has_ended() -> None:
    step = register_step_json("Register", federated="Train", group="wind-farm", image="x/y:1")
    scope = Scope({}, "arn/execution/1", "p")
    outputs = {name: f"s3://bucket/{name}" for name in STRING_OUTPUTS}
    scope.outputs["Train"] = {"OutputParameters": outputs}
    request = scope.resolve(step["Arguments"])
    request["ModelMetrics"] = {k: v for k, v in request["ModelMetrics"].items() if v}
    shape = (
        botocore.session.get_session()
        .get_service_model("sagemaker")
        .operation_model("CreateModelPackage")
        .input_shape
    )
    report = botocore.validate.ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()
    assert request["CustomerMetadataProperties"]["mledgeops.run_id"] == "s3://bucket/run"
    assert request["ModelApprovalStatus"] == "PendingManualApproval"


def test_step_names_are_those_that_sagemaker_takes() -> None:
    """By botocore's model of what the API says of a step."""
    model = botocore.session.get_session().get_service_model("sagemaker")
    shape = model.shape_for("StepName")
    for name in ("Train", "train_2", "A-b", "x" * 64):
        assert check_name(name) == name
        assert re.fullmatch(shape.metadata["pattern"], name)
        assert len(name) <= shape.metadata["max"]
    for name in ("", "my step", "größer", "a.b", "x" * 65):
        with pytest.raises(UsageError, match="is no name of a step"):
            check_name(name)
    with pytest.raises(UsageError, match="such as 'my-step'"):
        check_name("my step!")


def test_the_group_is_the_apps_unless_one_is_named() -> None:
    assert group_of(APP) == "wind-farm"
    assert group_of(APP, "ours") == "ours"
    with pytest.raises(UsageError, match="name the model package group"):
        group_of(PublishedApp(digest="a" * 64, name=output_json("Prepare", "app")))
