"""The local SageMaker's pipeline engine on definitions, with fakes for the services it calls."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.pipelines import engine_on, until

from pipelines.local.sagemaker.executions import PipelineExecution


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
        clients = {"sqs": self.sqs, "lambda": Functions(), "sagemaker": self.packages}
        self.engine, _ = engine_on(folder, **clients)

    def run(
        self, definition: dict, answer: dict | None = None, failure: str | None = None, **given: str
    ) -> PipelineExecution:
        execution = self.engine.start("p", definition, given)
        until(lambda: self.sqs.sent)
        assert self.engine.callbacks.answer(self.sqs.sent[0]["token"], answer, failure)
        assert not self.engine.callbacks.answer(self.sqs.sent[0]["token"], answer, failure), (
            "a callback is answered once"
        )
        until(lambda: execution.status not in ("Executing", "Stopping"))
        return execution


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


@pytest.mark.parametrize("kind", ["Training", "Processing", "Tuning", "Transform", "EMR"])
def test_a_step_that_cannot_run_here_is_refused_before_anything_runs(
    world: World, kind: str
) -> None:
    step = {"Name": "Fit", "Type": kind, "Arguments": {"AlgorithmSpecification": {}}}
    with pytest.raises(ValueError, match=rf"the step Fit \({kind}\): .* Give it a stand-in"):
        world.engine.start("p", pipeline(step), {})
    assert world.sqs.sent == []


def test_stopping_asks_the_run_to_stop_and_waits_for_its_answer(world: World) -> None:
    execution = world.engine.start("p", pipeline(REGISTER), {})
    until(lambda: world.sqs.sent)
    world.engine.stop(execution)
    until(lambda: len(world.sqs.sent) == 2)
    assert (world.sqs.sent[1]["status"], execution.status) == ("Stopping", "Stopping")
    world.engine.callbacks.answer(world.sqs.sent[0]["token"], None, "stopped")
    until(lambda: execution.status == "Stopped")


def test_executions_are_kept_and_one_cut_off_is_failed(world: World, tmp_path: Path) -> None:
    done = world.run(pipeline(REGISTER), {"score": "1", "uri": "x"})
    cut = world.engine.start("p", pipeline(REGISTER), {})
    until(lambda: len(world.sqs.sent) == 2)
    again = World(tmp_path).engine
    assert again.get(done.arn).status == "Succeeded"  # type: ignore[union-attr]
    assert again.get(cut.arn).status == "Failed"  # type: ignore[union-attr]


@pytest.mark.parametrize("given", [{"Surprise": "1"}])
def test_an_undeclared_parameter_is_refused(world: World, given: dict) -> None:
    with pytest.raises(ValueError, match="Unknown parameters"):
        world.engine.start("p", pipeline(), given)
    with pytest.raises(ValueError, match="Missing parameters"):
        world.engine.start("p", {"Parameters": [{"Name": "A", "Type": "String"}], "Steps": []}, {})
