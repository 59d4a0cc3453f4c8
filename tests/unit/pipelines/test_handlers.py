"""The Lambda handlers as pure functions, and the documents that deploy."""

from __future__ import annotations

import json
from typing import Any

import boto3
import botocore.session
import pytest
from support.paths import ROOT

from edge.protocol.messages import Envelope
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.scoring import choose_metric, goal_of
from fl_runtime.run.spec import RunSpec
from pipelines.aws import state_machine
from pipelines.aws.policies import claim_policy, device_policy
from pipelines.deployment import Deployment
from pipelines.handlers.conclude import outputs_of, reason_of
from pipelines.handlers.discover import discover
from pipelines.handlers.dispatch import CallbackMessage, spec_of
from pipelines.handlers.refuse import reason_of as refusal
from pipelines.run import pipeline as definition

D = Deployment(account="000000000000", region="us-east-1")
APP = "a" * 64


def message(**arguments: Any) -> CallbackMessage:
    given = {p.argument: p.default for p in definition.PARAMETERS} | {
        "app": APP,
        "app_name": "x",
        "fleet": "f",
    }
    return CallbackMessage(
        token="Tok1234567", pipeline_execution_arn="arn:p", arguments={**given, **arguments}
    )


def test_a_callback_message_becomes_a_run() -> None:
    spec = spec_of(
        message(
            num_rounds="5",
            strategy="FedAdam",
            strategy_params='{"eta": 0.1}',
            run_config='{"lr": 0.5, "on": true}',
        ),
        10.0,
    )
    assert (spec.run, spec.num_rounds, spec.strategy, spec.strategy_params, spec.run_config) == (
        "run-Tok1234567",
        5,
        "FedAdam",
        {"eta": 0.1},
        {"lr": 0.5, "on": True},
    )
    assert (spec.metric, spec.goal) == ("", "")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_rounds": "0"}, "num_rounds"),
        ({"num_rounds": -1}, "num_rounds"),
        ({"min_devices": 0}, "min_devices"),
        ({"app": "x"}, "app"),
        ({"fleet": "a/b"}, "fleet"),
        ({"run_config": "[1]"}, "run_config"),
        ({"strategy_params": "{"}, "strategy_params"),
        ({"devices_per_proxy": -1}, "devices_per_proxy"),
        ({"phase_seconds": 0}, "phase_seconds"),
        ({"goal": "sideways"}, "goal"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_parameters_that_make_no_run_are_named(arguments: dict, text: str) -> None:
    with pytest.raises(RunFailed) as refused:
        spec_of(message(**arguments), 0.0)
    assert text in str(refused.value)
    assert len(str(refused.value)) <= 256


def spec(**changes: Any) -> RunSpec:
    return RunSpec(
        **{
            "run": "run-1",
            "fleet": "f",
            "app": APP,
            "app_name": "x",
            "num_rounds": 1,
            "min_devices": 2,
            "deadline_seconds": 100.0,
            **changes,
        }
    )


def test_discovery_starts_waits_or_gives_up() -> None:
    assert discover(spec(), ["a", "b", "c"], 1.0).enough
    assert discover(spec(devices_per_proxy=2), ["a", "b", "c"], 1.0).cohorts == ["c0000", "c0001"]
    assert discover(spec(devices_per_proxy=0), ["a", "b"], 1.0).cohorts == []
    assert discover(spec(max_devices=2), ["a", "b", "c"], 1.0).count == 2
    waiting = discover(spec(), ["a"], 50.0)
    assert (waiting.enough, waiting.expired) == (False, False)
    assert discover(spec(), ["a"], 100.0).expired
    assert "1 of the 2 devices" in discover(spec(), ["a"], 100.0).reason


@pytest.mark.parametrize("deadline", [10.0, 3600.0, 30 * 86_400.0])
def test_a_wait_never_fills_the_history_of_the_state_machine(deadline: float) -> None:
    now, looks = 0.0, 0
    while not (found := discover(spec(deadline_seconds=deadline), [], now)).expired:
        now += found.wait_seconds
        looks += 1
    assert looks * 10 < 25_000


def test_outputs_keep_the_callbacks_limits() -> None:
    outcome = dict.fromkeys((*definition.STRING_OUTPUTS, *definition.FLOAT_OUTPUTS), "x" * 2000) | {
        "score": -1.5,
        "value": 1.5,
    }
    outputs = outputs_of(outcome, -9.0, "arn:e")
    assert len(outputs) <= 50
    assert all(isinstance(o["Value"], str) and len(o["Value"]) <= 1024 for o in outputs)
    assert {"Name": "champion_score", "Value": "-9.0"} in outputs


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            {"Error": "RunFailed", "Cause": "No device gave a valid update."},
            "No device gave a valid update.",
        ),
        ({"Error": "TooFewDevices", "Cause": "1 of 2"}, "1 of 2"),
        ({"Error": "Lambda.Unknown", "Cause": '{"errorMessage": "boom"}'}, "Lambda.Unknown: boom"),
        ({"Error": "States.HeartbeatTimeout"}, "States.HeartbeatTimeout: "),
        ({"Error": "X", "Cause": "y" * 999}, "X: " + "y" * 253),
    ],
)
def test_reasons_are_one_short_sentence(error: dict, reason: str) -> None:
    assert reason_of(error) == reason


def test_a_refused_model_says_its_numbers() -> None:
    text = refusal({"metric": "rmse", "score": -9.0, "minimum_score": -5.0, "champion_score": -7.0})
    assert "-9.0" in text and "-5.0" in text and "-7.0" in text


@pytest.mark.parametrize(
    ("metric", "goal"),
    [
        ("rmse_kw", "minimize"),
        ("loss", "minimize"),
        ("eval_acc", "maximize"),
        ("accuracy", "maximize"),
        ("r2", "maximize"),
    ],
)
def test_goals_are_known_by_name(metric: str, goal: str) -> None:
    assert goal_of(metric) == goal


def test_the_judging_metric_is_chosen_or_refused() -> None:
    assert choose_metric(["loss", "accuracy"], "") == "accuracy"
    assert choose_metric(["loss"], "") == "loss"
    with pytest.raises(RunFailed, match="report no metric 'f1'"):
        choose_metric(["loss"], "f1")
    with pytest.raises(RunFailed, match="no evaluate metric"):
        choose_metric([], "")


def states_of(document: dict) -> dict[str, dict]:
    found = dict(document["States"])
    for state in document["States"].values():
        for branch in (
            *state.get("Branches", []),
            *([state["Iterator"]] if "Iterator" in state else []),
        ):
            found |= states_of(branch)
    return found


def test_the_state_machine_is_closed_and_every_task_is_guarded() -> None:
    document = state_machine.definition(D)
    states = states_of(document)
    for name, state in states.items():
        targets = [
            state.get("Next"),
            state.get("Default"),
            *(c["Next"] for c in (*state.get("Catch", []), *state.get("Choices", []))),
        ]
        assert all(target in states for target in targets if target), name
        assert (
            "Next" in state or state.get("End") or state["Type"] in ("Choice", "Succeed", "Fail")
        ), name
        if state["Type"] == "Task":
            assert state.get("Retry"), f"{name} has no retry"
    assert states["Server"]["HeartbeatSeconds"] == 30
    assert states["Server"]["Resource"].endswith("ecs:runTask.waitForTaskToken")
    assert states["Proxy"]["Resource"].endswith("ecs:runTask.sync")
    assert states["Proxy"]["ResultPath"] is None
    assert "RunFailed" not in states["Server"]["Retry"][0]["ErrorEquals"], (
        "an app's own failure is not tried again"
    )


@pytest.fixture(scope="module")
def pipeline_document() -> dict:
    session = definition.session(
        D, boto3.Session(region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    )
    return json.loads(definition.build(D, "wind_farm", session).definition())


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


def test_a_device_may_use_its_own_topics_only() -> None:
    text = json.dumps(device_policy(D))
    assert text.count("${iot:Connection.Thing.ThingName}") >= 8
    assert "topic/fl/*/*" not in text
    claim = json.dumps(claim_policy(D))
    assert "fl/" not in claim
    assert "shadow" not in claim
    assert Envelope(body="x").key == ""


def test_the_documented_parameters_are_those_of_the_pipeline() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for parameter in (*definition.PARAMETERS, definition.BAR):
        assert f"| `{parameter.name}` | `{parameter.default}` | {parameter.meaning} |" in text
