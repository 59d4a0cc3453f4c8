"""A run's end as the callback's answer: outputs within limits, one short sentence."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fakes.runs import spec
from fakes.services import memory_services

from fl_runtime.run.keys import spec_key
from fl_runtime.run.scoring import NO_CHAMPION
from fl_runtime.run.state import RunState
from pipelines.handlers import conclude
from pipelines.handlers.conclude import outputs_of, reason_of
from pipelines.run.names import FLOAT_OUTPUTS, STRING_OUTPUTS
from registry.errors import RegistryError


def test_outputs_keep_the_callbacks_limits() -> None:
    outcome = dict.fromkeys((*STRING_OUTPUTS, *FLOAT_OUTPUTS), "x" * 2000) | {
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


TOKEN, RUN = "Tok1234567", "run-1"
OUTCOME = {
    **dict.fromkeys(STRING_OUTPUTS, "x"),
    "metric": "accuracy",
    "value": 0.8,
    "score": 0.8,
    "run": RUN,
}
BEFORE = {name: value for name, value in OUTCOME.items() if name != "outcome"}
"""What a server of an earlier version answers."""


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = memory_services()
    monkeypatch.setattr(conclude, "services", lambda: made)
    monkeypatch.setattr(conclude, "champion_score", lambda *_: NO_CHAMPION)
    made.objects.put(spec_key(RUN), msgspec.json.encode(spec(run=RUN)))
    made.runs.create(RunState(run=RUN, state="Running"))
    return made


def concluded(aws: Any, **request: Any) -> Any:
    conclude.handler({"run": RUN, "token": TOKEN, **request}, None)
    return aws.sagemaker.answers.get(TOKEN)


def test_a_run_that_made_a_model_ends_everywhere(aws: Any) -> None:
    outputs = concluded(aws, ok=True, outcome=OUTCOME)
    assert (outputs["score"], outputs["champion_score"]) == ("0.8", "-1e+300")
    assert "outcome" not in BEFORE
    assert outputs_of(BEFORE, 0.0, "arn:e")[1] == {"Name": "outcome", "Value": "model"}
    assert aws.runs.get(RUN).state == "Succeeded"
    assert [run.status for run in aws.mlflow().runs.values()] == ["FINISHED"]


def test_a_run_that_failed_gives_its_reason(aws: Any) -> None:
    error = {"Error": "RunFailed", "Cause": "No device gave a valid update."}
    assert concluded(aws, ok=False, error=error) == "No device gave a valid update."
    assert (aws.runs.get(RUN).state, aws.runs.get(RUN).reason) == ("Failed", error["Cause"])


def test_the_condition_gets_the_robust_score_and_the_registry_the_reported_one(aws: Any) -> None:
    outputs = concluded(aws, ok=True, outcome={**OUTCOME, "score": 0.1, "reported_score": 0.9})
    assert (outputs["score"], outputs["score_text"], outputs["value"]) == ("0.1", "0.9", "0.8")


def test_an_analysis_and_a_model_that_nothing_judges_have_no_score_to_beat(
    aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the champion's score is asked for
    monkeypatch.setattr(conclude, "services", lambda: aws)
    outcome = {**OUTCOME, "outcome": "analysis", "metric": "-", "score": NO_CHAMPION}
    outputs = concluded(aws, ok=True, outcome=outcome)
    assert (outputs["outcome"], outputs["score_text"]) == ("analysis", "-")
    assert float(outputs["score"]) >= float(outputs["champion_score"])
    assert aws.runs.get(RUN).state == "Succeeded"


def test_a_second_conclusion_changes_nothing(aws: Any) -> None:
    first = concluded(aws, ok=True, outcome=OUTCOME)
    assert concluded(aws, ok=True, outcome=OUTCOME) == first


def test_a_run_that_somebody_stopped_stays_stopped(aws: Any) -> None:
    aws.runs.update(RUN, state="Stopping")
    assert concluded(aws, ok=True, outcome=OUTCOME) is None
    assert aws.runs.get(RUN).state == "Stopping"


def test_a_run_that_is_stopped_while_it_is_concluded_ends_as_stopped(aws: Any) -> None:
    def stop_meanwhile() -> Any:
        aws.runs.items[RUN]["state"] = "Stopping"
        return mlflow

    mlflow = aws.mlflow()
    object.__setattr__(aws, "mlflow", stop_meanwhile)
    assert concluded(aws, ok=True, outcome=OUTCOME) is None
    assert [run.status for run in mlflow.runs.values()] == ["KILLED"]


def test_the_pipeline_is_answered_though_mlflow_is_away(aws: Any) -> None:
    def away() -> Any:
        raise ConnectionError("MLflow is away")

    object.__setattr__(aws, "mlflow", away)
    assert concluded(aws, ok=True, outcome=OUTCOME)["metric"] == "accuracy"


def in_pipeline(aws: Any, name: str) -> None:
    arn = f"arn:aws:sagemaker:us-east-1:000000000000:pipeline/{name}/execution/1"
    found = spec(run=RUN, pipeline_execution_arn=arn, app_name="wind_farm")
    aws.objects.put(spec_key(RUN), msgspec.json.encode(found))


def test_the_end_of_a_run_in_a_teams_pipeline_is_signed(aws: Any) -> None:
    """By the record the package that the team registers is known as the run's."""
    in_pipeline(aws, "team-wind")
    concluded(aws, ok=True, outcome={**OUTCOME, "outcome": "model"})
    assert aws.link.signed == [RUN]


@pytest.mark.parametrize("name", ["mledgeops-wind-farm", "MLEdgeOps-Wind-Farm"])
def test_our_own_pipeline_links_by_its_own_step(aws: Any, name: str) -> None:
    in_pipeline(aws, name)
    concluded(aws, ok=True, outcome={**OUTCOME, "outcome": "model"})
    assert aws.link.signed == []


def test_an_analysis_and_a_failed_run_have_no_model_to_sign(aws: Any) -> None:
    in_pipeline(aws, "team-wind")
    concluded(aws, ok=True, outcome={**OUTCOME, "outcome": "analysis"})
    assert aws.link.signed == []


def test_a_run_succeeds_though_its_end_cannot_be_signed(aws: Any) -> None:
    in_pipeline(aws, "team-wind")
    aws.link.refusal = RegistryError("the key is disabled")
    assert concluded(aws, ok=True, outcome={**OUTCOME, "outcome": "model"})["run"] == RUN
    assert aws.runs.get(RUN).state == "Succeeded"
