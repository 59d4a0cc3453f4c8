"""The local SageMaker's pipeline engine on definitions, with fakes for the services it calls."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from pipelines.local.sagemaker.engine import Engine
from pipelines.local.sagemaker.executions import PipelineExecution
from pipelines.local.sagemaker.values import Scope, holds


class Sqs:
    def __init__(self) -> None:
        self.sent: list[dict] = []

    def get_queue_url(self, QueueName: str) -> dict:
        return {"QueueUrl": QueueName}

    def send_message(self, QueueUrl: str, MessageBody: str) -> None:
        self.sent.append(json.loads(MessageBody))


class Functions:
    def invoke(self, FunctionName: str, Payload: str) -> dict:
        if "broken" in FunctionName:
            return {
                "FunctionError": "Unhandled",
                "Payload": io.BytesIO(b'{"errorMessage": "boom"}'),
            }
        return {
            "Payload": io.BytesIO(json.dumps({"version": json.loads(Payload)["arn"][-1]}).encode())
        }


class Packages:
    def __init__(self) -> None:
        self.groups: list[str] = []
        self.created: list[dict] = []

    def describe_model_package_group(self, ModelPackageGroupName: str) -> None:
        if ModelPackageGroupName not in self.groups:
            raise ClientError(
                {"Error": {"Code": "ValidationException"}}, "DescribeModelPackageGroup"
            )

    def create_model_package_group(self, ModelPackageGroupName: str) -> None:
        self.groups.append(ModelPackageGroupName)

    def create_model_package(self, **arguments: Any) -> dict:
        self.created.append(arguments)
        return {"ModelPackageArn": "arn:package/1"}


CALLBACK = {
    "Name": "Run",
    "Type": "Callback",
    "SqsQueueUrl": "https://sqs/q",
    "Arguments": {"rounds": {"Get": "Parameters.Rounds"}},
    "OutputParameters": [
        {"OutputName": "score", "OutputType": "Float"},
        {"OutputName": "uri", "OutputType": "String"},
    ],
}
SCORE = {"Get": "Steps.Run.OutputParameters['score']"}


def pipeline(*then: dict, otherwise: list[dict] | None = None) -> dict:
    condition = {
        "Type": "GreaterThanOrEqualTo",
        "LeftValue": SCORE,
        "RightValue": {"Get": "Parameters.Bar"},
    }
    steps = [
        CALLBACK,
        {
            "Name": "Good",
            "Type": "Condition",
            "Arguments": {
                "Conditions": [condition],
                "IfSteps": list(then),
                "ElseSteps": otherwise or [],
            },
        },
    ]
    parameters = [
        {"Name": "Rounds", "Type": "Integer", "DefaultValue": 3},
        {"Name": "Bar", "Type": "Float", "DefaultValue": 0.5},
    ]
    return {"Parameters": parameters, "Steps": steps}


REGISTER = {
    "Name": "Reg",
    "Type": "RegisterModel",
    "Arguments": {
        "ModelPackageGroupName": "g",
        "ModelDataUrl": {"Get": "Steps.Run.OutputParameters['uri']"},
        "ModelMetrics": {"Bias": {}},
    },
}
LINK = {
    "Name": "Link",
    "Type": "Lambda",
    "FunctionArn": "arn:f:link",
    "Arguments": {"arn": {"Get": "Steps.Reg.ModelPackageArn"}},
    "OutputParameters": [{"OutputName": "version", "OutputType": "String"}],
}
FAIL = {
    "Name": "Low",
    "Type": "Fail",
    "Arguments": {"ErrorMessage": {"Std:Join": {"On": " ", "Values": ["score", SCORE]}}},
}


class World:
    def __init__(self, folder: Path) -> None:
        self.sqs, self.packages = Sqs(), Packages()
        self.engine = Engine(
            folder,
            {"sqs": self.sqs, "lambda": Functions(), "sagemaker": self.packages},
            "arn:aws:sagemaker:r:a",
        )

    def run(
        self, definition: dict, answer: dict | None = None, failure: str | None = None, **given: str
    ) -> PipelineExecution:
        execution = self.engine.start("p", definition, given)
        self.until(lambda: self.sqs.sent)
        assert self.engine.callbacks.answer(self.sqs.sent[0]["token"], answer, failure)
        assert not self.engine.callbacks.answer(self.sqs.sent[0]["token"], answer, failure), (
            "a callback is answered once"
        )
        self.until(lambda: execution.status not in ("Executing", "Stopping"))
        return execution

    def until(self, true: Any) -> None:
        for _ in range(500):
            if true():
                return
            time.sleep(0.01)
        raise AssertionError("it did not happen")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_good_score_is_registered_and_linked(world: World) -> None:
    execution = world.run(
        pipeline(REGISTER, LINK, otherwise=[FAIL]), {"score": "0.9", "uri": "s3://b/k"}, Rounds="7"
    )
    assert execution.status == "Succeeded"
    assert world.sqs.sent[0]["arguments"] == {"rounds": 7}
    assert world.packages.created == [
        {"ModelPackageGroupName": "g", "ModelDataUrl": "s3://b/k", "ModelMetrics": {}}
    ]
    assert execution.steps["Link"]["Metadata"]["Lambda"]["OutputParameters"] == [
        {"Name": "version", "Value": "1"}
    ]
    assert [step["StepStatus"] for step in execution.steps.values()] == ["Succeeded"] * 4


def test_a_low_score_fails_with_the_numbers(world: World) -> None:
    execution = world.run(pipeline(REGISTER, otherwise=[FAIL]), {"score": "0.1", "uri": "x"})
    assert (execution.status, execution.reason) == ("Failed", "score 0.1")
    assert world.packages.created == []


def test_a_failed_run_fails_with_its_reason(world: World) -> None:
    execution = world.run(pipeline(REGISTER), None, "no devices")
    assert (execution.status, execution.reason) == ("Failed", "no devices")
    assert execution.steps["Run"]["FailureReason"] == "no devices"


def test_a_failing_function_fails_the_execution(world: World) -> None:
    execution = world.run(
        pipeline(REGISTER, {**LINK, "FunctionArn": "arn:f:broken"}), {"score": "1", "uri": "x"}
    )
    assert "boom" in execution.reason


def test_a_step_it_cannot_run_says_so(world: World) -> None:
    execution = world.run(
        pipeline({"Name": "T", "Type": "Training", "Arguments": {}}), {"score": "1", "uri": "x"}
    )
    assert "does not run steps of type Training" in execution.reason


def test_stopping_asks_the_run_to_stop_and_waits_for_its_answer(world: World) -> None:
    execution = world.engine.start("p", pipeline(REGISTER), {})
    world.until(lambda: world.sqs.sent)
    world.engine.stop(execution)
    world.until(lambda: len(world.sqs.sent) == 2)
    assert (world.sqs.sent[1]["status"], execution.status) == ("Stopping", "Stopping")
    world.engine.callbacks.answer(world.sqs.sent[0]["token"], None, "stopped")
    world.until(lambda: execution.status == "Stopped")


def test_executions_are_kept_and_one_cut_off_is_failed(world: World, tmp_path: Path) -> None:
    done = world.run(pipeline(REGISTER), {"score": "1", "uri": "x"})
    cut = world.engine.start("p", pipeline(REGISTER), {})
    world.until(lambda: len(world.sqs.sent) == 2)
    again = World(tmp_path).engine
    assert again.get(done.arn).status == "Succeeded"  # type: ignore[union-attr]
    assert again.get(cut.arn).status == "Failed"  # type: ignore[union-attr]


@pytest.mark.parametrize("given", [{"Surprise": "1"}])
def test_an_undeclared_parameter_is_refused(world: World, given: dict) -> None:
    with pytest.raises(ValueError, match="Unknown parameters"):
        world.engine.start("p", pipeline(), given)
    with pytest.raises(ValueError, match="Missing parameters"):
        world.engine.start("p", {"Parameters": [{"Name": "A", "Type": "String"}], "Steps": []}, {})


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"Type": "LessThan", "LeftValue": 1, "RightValue": 2}, True),
        ({"Type": "Equals", "LeftValue": "a", "RightValue": "b"}, False),
        (
            {"Type": "Not", "Expression": {"Type": "GreaterThan", "LeftValue": 1, "RightValue": 2}},
            True,
        ),
        (
            {
                "Type": "Or",
                "Conditions": [
                    {"Type": "Equals", "LeftValue": 1, "RightValue": 2},
                    {"Type": "LessThanOrEqualTo", "LeftValue": 1, "RightValue": 1},
                ],
            },
            True,
        ),
        ({"Type": "In", "QueryValue": {"Get": "Parameters.P"}, "Values": ["x", "y"]}, True),
    ],
)
def test_conditions(condition: dict, expected: bool) -> None:
    assert holds(condition, Scope({"P": "x"}, "arn/1", "p")) is expected


def test_a_reference_that_leads_nowhere_is_refused() -> None:
    scope = Scope({}, "arn/1", "p")
    for reference in ("Parameters.X", "Steps.No.Out", "Execution.Nope", "garbage"):
        with pytest.raises(ValueError, match="does not exist"):
            scope.resolve({"Get": reference})
    assert scope.resolve({"Get": "Execution.PipelineName"}) == "p"
