"""Pipelines as AWS's documentation teaches them run to their end, or are refused with the reason.

The SageMaker SDK compiles them; moto's server is S3, SQS and the model registry.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from support.pipelines import until

from pipelines.deployment import Deployment
from pipelines.local.processes import free_port
from pipelines.local.sagemaker.definitions.checks import parsed
from pipelines.local.sagemaker.engine import Engine
from pipelines.local.sagemaker.executions import PipelineExecution
from pipelines.local.sagemaker.jobs.process import private_mounts
from pipelines.local.sagemaker.jobs.runner import JobRunner
from pipelines.local.sagemaker.jobs.stand_ins import StandIns
from pipelines.step import sdk

if TYPE_CHECKING:
    from support.sample_pipelines import Workshop

pytestmark = pytest.mark.skipif(not private_mounts(), reason="no private mounts on this kernel")

DEPLOYMENT = Deployment(account="123456789012", region="us-east-1")


class Functions:
    """A Lambda function that keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[dict[str, Any]] = []

    def invoke(self, FunctionName: str, Payload: str) -> dict[str, Any]:
        self.given.append({"function": FunctionName, **json.loads(Payload)})
        return {"Payload": io.BytesIO(b'{"body": "told"}')}


class Lab:
    """An engine on moto's server, and what the SDK needs to build pipelines for it."""

    def __init__(self, folder: Path, shop: Workshop) -> None:
        self.folder, self.shop, self.functions = folder, shop, Functions()
        self.sqs, self.sagemaker, self.s3 = map(boto3.client, ("sqs", "sagemaker", "s3"))
        clients = {
            "sqs": self.sqs,
            "sagemaker": self.sagemaker,
            "s3": self.s3,
            "lambda": self.functions,
        }
        jobs = JobRunner(
            folder=folder,
            logs=folder / "logs",
            s3=lambda _: self.s3,
            credentials=lambda _: {},
        )
        prefix = "arn:aws:sagemaker:us-east-1:123456789012"
        self.engine = Engine(folder / "executions", lambda _: clients, prefix, jobs)

    def start(self, name: str, **given: str) -> PipelineExecution:
        from support.sample_pipelines import ALL

        pipeline = ALL[name](self.shop)
        definition = parsed(pipeline.definition())
        return self.engine.start(pipeline.name, definition, given)

    def ran(self, name: str, **given: str) -> PipelineExecution:
        execution = self.start(name, **given)
        until(lambda: execution.status != "Executing", 240)
        return execution


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    port, patch = free_port(), pytest.MonkeyPatch()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
    }.items():
        patch.setenv(name, value)
    server.start()
    session = sdk.session(DEPLOYMENT, boto3.Session())
    # Not before the session: it switches the SDK's warnings off, and the SDK is imported here.
    from support.sample_pipelines import RAW, SCRIPTS, Workshop

    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=DEPLOYMENT.bucket)
    s3.put_object(Bucket=DEPLOYMENT.bucket, Key="raw/raw.csv", Body=RAW.encode())
    scripts = tmp_path_factory.mktemp("scripts")
    for name, text in SCRIPTS.items():
        (scripts / name).write_text(text)
    yield Workshop(session=session, scripts=scripts, bucket=DEPLOYMENT.bucket)
    server.stop()
    patch.undo()


@pytest.fixture
def lab(tmp_path: Path, workshop: Workshop) -> Lab:
    return Lab(tmp_path, workshop)


@pytest.mark.proof
def test_abalone_needs_a_stand_in_for_its_algorithm_and_then_registers(lab: Lab) -> None:
    with pytest.raises(ValueError, match=r"the step Train \(Training\): it trains by the code of"):
        lab.start("abalone")
    boost = f"{lab.shop.scripts}/stand_ins.py:boost"
    StandIns(lab.folder).set("AbalonePipeline", "Train", boost)
    made = lab.ran("abalone")
    assert (made.status, made.reason) == ("Succeeded", "")
    package = made.steps["Register-RegisterModel"]["Metadata"]["RegisterModel"]["Arn"]
    found = lab.sagemaker.describe_model_package(ModelPackageName=package)
    assert found["ModelApprovalStatus"] == "PendingManualApproval"
    [container] = found["InferenceSpecification"]["Containers"]
    bucket, key = container["ModelDataUrl"].removeprefix("s3://").split("/", 1)
    assert lab.s3.head_object(Bucket=bucket, Key=key)["ContentLength"] > 0
    statistics = found["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
    assert statistics.endswith("/evaluation.json")
    low = lab.ran("abalone", MseThreshold="-1")
    assert (low.status, low.reason) == ("Failed", "MSE is above -1.0")


@pytest.mark.proof
def test_churn_trains_in_script_mode_in_whatever_order_the_file_has(lab: Lab) -> None:
    made = lab.ran("churn")
    assert (made.status, made.reason) == ("Succeeded", "")
    assert list(made.steps)[:2] == ["Prepare", "Train"]
    name = made.steps["Create-CreateModel"]["Metadata"]["Model"]["Arn"].rsplit("/", 1)[1]
    found = lab.sagemaker.describe_model(ModelName=name)
    assert found["PrimaryContainer"]["Image"].endswith("/any:1")


@pytest.mark.proof
def test_two_trainings_run_side_by_side_and_their_metrics_decide(lab: Lab) -> None:
    made = lab.ran("ablation")
    assert (made.status, made.reason) == ("Succeeded", "")
    plain, shrunk = made.steps["Plain"], made.steps["Shrunk"]
    assert plain["StartTime"] < shrunk["EndTime"] and shrunk["StartTime"] < plain["EndTime"]
    assert lab.functions.given[0]["model"].endswith("/output/model.tar.gz")


def test_execution_values_and_all_conditions(lab: Lab) -> None:
    made = lab.ran("deploy_by_lambda")
    assert made.status == "Succeeded"
    [given] = lab.functions.given
    assert given["name"] == f"beta-{made.arn.rsplit('/', 1)[1]}"
    assert given["at"].startswith("20") and given["at"].endswith("Z")
    assert list(lab.ran("deploy_by_lambda", Size="6").steps) == ["Allowed"]
    with pytest.raises(ValueError, match="Stage must be one of beta, prod"):
        lab.start("deploy_by_lambda", Stage="live")


def test_a_callback_waits_for_its_answer_and_is_told_of_a_stop(lab: Lab) -> None:
    queue = lab.sqs.create_queue(QueueName="approvals")["QueueUrl"]
    execution = lab.start("approval")
    until(lambda: execution.steps.get("Ask_Someone", {}).get("Metadata"))
    message = received(lab.sqs, queue)
    assert message["arguments"] == {"question": "may it?"}
    lab.engine.callbacks.answer(message["token"], {"answer": "yes"}, None)
    until(lambda: execution.status == "Succeeded")
    assert lab.functions.given[0]["answer"] == "yes"
    stopped = lab.start("approval")
    token = received(lab.sqs, queue)["token"]
    lab.engine.stop(stopped)
    told = received(lab.sqs, queue)
    assert (told["status"], told["token"]) == ("Stopping", token)
    lab.engine.callbacks.answer(token, None, "nobody asks any more")
    until(lambda: stopped.status == "Stopped")


def received(sqs: Any, queue: str) -> dict[str, Any]:
    [message] = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=10)["Messages"]
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    body: dict[str, Any] = json.loads(message["Body"])
    return body


@pytest.mark.proof
def test_a_cached_step_is_not_run_again(lab: Lab) -> None:
    first, second = lab.ran("cached"), lab.ran("cached")
    assert (first.status, second.status) == ("Succeeded", "Succeeded")
    hit = {"SourcePipelineExecutionArn": first.arn}
    assert second.steps["Prepare"]["CacheHitResult"] == hit
    assert "CacheHitResult" not in second.steps["Again"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        pytest.param(
            "batch",
            r"the step Batch \(Transform\): Transform steps run on a service of AWS",
            marks=pytest.mark.proof,
        ),
        pytest.param(
            "tuning",
            r"the step Search \(Tuning\): Tuning steps run on a service of AWS",
            marks=pytest.mark.proof,
        ),
        ("spark", r"the step Spark \(EMR\): EMR steps run on a service of AWS"),
    ],
)
def test_what_needs_a_service_of_aws_is_refused_before_anything_runs(
    lab: Lab, name: str, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        lab.start(name)


@pytest.mark.parametrize(("first", "second"), [(1, 1), (1, 2), (2, 1)])
def test_branches_are_taken_as_the_sdks_local_mode_takes_them(
    lab: Lab, first: int, second: int
) -> None:
    """Judge: sagemaker.local, which runs conditions and Fail steps without Docker."""
    from sagemaker.workflow.pipeline_context import LocalPipelineSession
    from support.sample_pipelines import ALL, branches

    ALL["branches"] = branches
    session = LocalPipelineSession(boto3.Session(), default_bucket=DEPLOYMENT.bucket)
    pipeline = branches(replace(lab.shop, session=session))
    pipeline.create("arn:aws:iam::123456789012:role/team")
    theirs = pipeline.start(parameters={"First": first, "Second": second})
    ours = lab.ran("branches", First=str(first), Second=str(second))
    assert (ours.status, set(ours.steps)) == (
        theirs.status,
        {name for name, step in theirs.step_execution.items() if step.status},
    )
    assert ours.reason in (theirs.failure_reason or "")


@pytest.mark.proof
def test_a_batch_transform_runs_by_a_stand_in(lab: Lab) -> None:
    transform = f"{lab.shop.scripts}/stand_ins.py:transform"
    StandIns(lab.folder).set("batch", "Batch", transform)
    made = lab.ran("batch")
    assert (made.status, made.reason) == ("Succeeded", "")
    properties = made.results["Batch"]["Properties"]
    assert properties["ModelName"].startswith("pipelines-")


@pytest.mark.proof
def test_step_functions_run_in_processes_of_their_own(lab: Lab) -> None:
    """The SDK itself unpickles them, in the job's process."""
    made = lab.ran("functions")
    assert (made.status, made.reason) == ("Succeeded", "")
    assert list(made.steps) == ["Load_Data", "Fit", "IsTwo"]
