"""A run is followed round by round, stopped, and reported, from what SageMaker and S3 say of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fakes.clock import Clock
from fakes.objects import MemoryObjects
from fakes.runs import record

from fl_runtime.run.keys import model_key, round_key
from fl_runtime.run.state import RunState
from pipelines.deployment import Deployment
from pipelines.run.clients import RunClients
from pipelines.run.executions import Executions, Snapshot
from pipelines.run.report import RunReport
from pipelines.run.runner import Runner, Started

D = Deployment(account="000000000000", region="us-east-1")
RUN = "run-Tok1234567"
ARN = "arn:p/execution/1"


class Objects(MemoryObjects):
    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.data if key.startswith(prefix))


class Runs:
    def get(self, run: str) -> RunState:
        return RunState(run=run, state="Failed", mlflow_run_id="m1", execution_arn="arn:states:1")


def step(name: str, **facts: Any) -> dict[str, Any]:
    return {"StepName": name, "StepStatus": "Succeeded", **facts}


def callback(
    name: str = "Train", token: str = "Tok1234567", queue: str = D.queue_url, **outputs: str
) -> dict[str, Any]:
    given = [{"Name": name, "Value": value} for name, value in outputs.items()]
    metadata = {"CallbackToken": token, "SqsQueueUrl": queue, "OutputParameters": given}
    return step(name, Metadata={"Callback": metadata})


class SageMaker:
    """Answers with one snapshot after the other, the last one for ever."""

    def __init__(self, *snapshots: tuple[str, list[dict[str, Any]]]) -> None:
        self.snapshots = list(snapshots)
        self.stopped: list[str] = []
        self.steps_read = 0

    def describe_pipeline_execution(self, PipelineExecutionArn: str) -> dict[str, Any]:
        self.now = self.snapshots.pop(0) if len(self.snapshots) > 1 else self.snapshots[0]
        return {"PipelineExecutionStatus": self.now[0], "FailureReason": "it ended"}

    def list_pipeline_execution_steps(
        self, PipelineExecutionArn: str, MaxResults: int, NextToken: str = "0"
    ) -> dict[str, Any]:
        """Newest first, two on a page."""
        self.steps_read += NextToken == "0"
        first = int(NextToken)
        page = self.now[1][::-1][first : first + 2]
        more = {"NextToken": str(first + 2)} if first + 2 < len(self.now[1]) else {}
        return {"PipelineExecutionSteps": page, **more}

    def stop_pipeline_execution(self, PipelineExecutionArn: str, ClientRequestToken: str) -> None:
        self.stopped.append(ClientRequestToken)

    def describe_model_package(self, ModelPackageName: str) -> dict[str, str]:
        return {"ModelApprovalStatus": "PendingManualApproval"}


def made(sagemaker: SageMaker, objects: Objects | None = None) -> tuple[Runner, Started]:
    parts: Any = {"objects": objects or Objects(), "runs": Runs()}
    clock = Clock()
    runner = Runner(D, RunClients(sagemaker=sagemaker, **parts), sleep=clock.sleep, clock=clock)
    return runner, Started(ARN, "wind_farm", 3, clock())


def with_rounds(*numbers: int) -> Objects:
    objects = Objects()
    for number in numbers:
        objects.put(round_key(RUN, number), msgspec.json.encode(record(number, accuracy=0.5)))
    return objects


def test_each_round_is_yielded_once() -> None:
    sagemaker = SageMaker(
        ("Executing", []), ("Executing", [callback()]), ("Succeeded", [callback()])
    )
    runner, started = made(sagemaker, with_rounds(1, 2))
    assert [found.round for found in runner.follow(started)] == [1, 2]
    assert sagemaker.steps_read == 1  # the run has a name by then


def test_a_check_may_end_the_following() -> None:
    def broken() -> None:
        raise RuntimeError("a device is gone")

    runner, started = made(SageMaker(("Executing", [])))
    with pytest.raises(RuntimeError):
        list(runner.follow(started, broken))


def test_stopping_waits_for_the_end_and_no_longer_than_it_may() -> None:
    sagemaker = SageMaker(("Stopping", []), ("Stopped", []))
    runner, started = made(sagemaker)
    assert runner.stop(started, 5.0)
    runner, started = made(SageMaker(("Stopping", [])))
    assert not runner.stop(started, 5.0)
    assert all(len(token) >= 32 for token in sagemaker.stopped)


def test_a_registered_model_is_reported_with_its_names() -> None:
    objects = with_rounds(1)
    objects.put(model_key(RUN, "tables/errors.json"), b'{"rmse":[1.0]}')
    version = [{"Name": "model_version", "Value": "4"}]
    runner, started = made(
        SageMaker(
            (
                "Succeeded",
                [
                    callback(metric="rmse", value="9.5", ended="-", mlflow_run_id="m2"),
                    step("Register-RegisterModel", Metadata={"RegisterModel": {"Arn": "arn:m/4"}}),
                    step("Link", Metadata={"Lambda": {"OutputParameters": version}}),
                ],
            )
        ),
        objects,
    )
    report = runner.report(started)
    assert (report.status, report.reason, report.run_id) == ("Succeeded", "", RUN)
    assert (report.metric, report.value, report.ended) == ("rmse", 9.5, "")
    assert (report.model_version, report.model_package_arn) == ("wind-farm/4", "arn:m/4")
    assert (report.approval, report.mlflow_run_id) == ("PendingManualApproval", "m2")
    assert report.tables == {"errors": {"rmse": [1.0]}}
    plain = report.to_json()
    assert "reason" not in plain
    assert "devices" not in plain["rounds"][0]


def test_federated_steps_are_found_by_their_queue_whatever_their_names() -> None:
    others = callback("Approve", "Other12345", queue="https://sqs/1/the-teams-own")
    steps = [
        step("Prepare"),
        others,
        callback("plain_run", "First12345", value="1"),
        callback("tuned_run", "Second1234"),
        step("store", Metadata={"RegisterModel": {"Arn": "arn:m/7"}}),
    ]
    sagemaker = SageMaker(("Executing", steps))
    found = Executions(sagemaker, D.queue_url).read(ARN)
    assert [(item.step, item.run, item.outputs) for item in found.federated] == [
        ("plain_run", "run-First12345", {"value": "1"}),
        ("tuned_run", "run-Second1234", {}),
    ]
    assert (found.run, found.outputs) == ("run-First12345", {"value": "1"})
    assert found.model_package_arn == "arn:m/7"
    assert Executions(SageMaker(("Executing", [others])), D.queue_url).read(ARN).run == ""


def test_a_model_that_is_not_better_is_not_a_failure() -> None:
    sentence = "The model's accuracy is 0.8; the champion has 0.9."
    steps = [callback(metric="accuracy", value="0.8"), step("BelowBar", FailureReason=sentence)]
    runner, started = made(SageMaker(("Failed", steps)))
    report = runner.report(started)
    assert (report.status, report.reason) == ("NotBetter", sentence)


@pytest.mark.parametrize(
    ("status", "steps", "said"),
    [
        ("Failed", [step("FederatedRun", FailureReason="Too few.")], ("Failed", "Too few.")),
        ("Failed", [], ("Failed", "it ended")),
        ("Stopped", [], ("Stopped", "it ended")),
    ],
)
def test_what_ended_otherwise_says_why(status: str, steps: list, said: tuple[str, str]) -> None:
    runner, started = made(SageMaker((status, steps)))
    report = runner.report(started)
    assert (report.status, report.reason) == said
    assert report.rounds == []


def test_a_failed_run_keeps_what_its_item_says() -> None:
    runner, started = made(SageMaker(("Failed", [callback()])))
    assert runner.report(started).mlflow_run_id == "m1"
    assert isinstance(Executions(SageMaker(("Failed", []))).read(ARN), Snapshot)
    assert RunReport().status == "Failed"
