"""Steps one by one: callbacks, functions, models, retries, caching, jobs' parts."""

from __future__ import annotations

import io
import json
import subprocess
import threading
import types
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from fakes.s3 import MemoryS3

from pipelines.local.sagemaker.definitions.graph import circle, graph_of
from pipelines.local.sagemaker.definitions.values import Scope
from pipelines.local.sagemaker.executions import Callbacks, PipelineExecution
from pipelines.local.sagemaker.jobs import data, processing, script_mode, training
from pipelines.local.sagemaker.jobs.container import CANNOT_START, enter
from pipelines.local.sagemaker.jobs.python import make_environment
from pipelines.local.sagemaker.jobs.runner import Job, JobRunner
from pipelines.local.sagemaker.jobs.stand_in_runner import main as call_stand_in
from pipelines.local.sagemaker.moto_actions import invalid
from pipelines.local.sagemaker.outcomes import ExecutionStopped, JobLost, StepFailed
from pipelines.local.sagemaker.pipeline_actions import checked
from pipelines.local.sagemaker.roles import Roles
from pipelines.local.sagemaker.steps.caching import KEYS, cache_key, cached, seconds_of
from pipelines.local.sagemaker.steps.callback import call_back
from pipelines.local.sagemaker.steps.context import StepContext
from pipelines.local.sagemaker.steps.control import decide, fail
from pipelines.local.sagemaker.steps.functions import invoke
from pipelines.local.sagemaker.steps.jobs import run_job
from pipelines.local.sagemaker.steps.models import create, register
from pipelines.local.sagemaker.steps.retrying import exception_type, retried
from pipelines.local.sagemaker.steps.runner import reason_of

ARN = "arn:aws:sagemaker:us-east-1:000000000000:pipeline/p/execution/abc123def456"


def error(code: str, status: int = 400) -> ClientError:
    answer = {
        "Error": {"Code": code, "Message": f"said {code}"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(answer, "Create")  # type: ignore[arg-type]


@pytest.fixture
def context(tmp_path: Path) -> StepContext:
    execution = PipelineExecution(ARN, "p", {}, {"P": 1})
    for name in ("S", "T"):
        execution.steps[name] = {"Metadata": {}}
    s3 = MemoryS3()
    jobs = JobRunner(folder=tmp_path, logs=tmp_path, s3=lambda _: s3, credentials=lambda _: {})
    return StepContext(
        execution=execution,
        scope=Scope({"P": 1}, ARN, "p"),
        clients={},
        callbacks=Callbacks(),
        save=lambda _: None,
        jobs=jobs,
    )


def test_a_callback_of_a_stopping_execution_ends_only_when_it_is_answered(
    context: StepContext,
) -> None:
    sent: list[dict[str, Any]] = []

    def send(QueueUrl: str, MessageBody: str) -> None:
        sent.append(json.loads(MessageBody))
        if sent[-1]["status"] == "Stopping":
            context.callbacks.answer(sent[0]["token"], None, "the devices were told")

    context.clients["sqs"] = types.SimpleNamespace(send_message=send)  # type: ignore[index]
    context.execution.stopping.set()
    step = {"Name": "S", "Type": "Callback", "SqsQueueUrl": "q"}
    with pytest.raises(ExecutionStopped, match="the devices were told"):
        call_back(step, context)
    assert [message["status"] for message in sent] == ["Executing", "Stopping"]


def test_a_fail_step_joins_its_message_and_a_condition_shows_its_outcome(
    context: StepContext,
) -> None:
    message = {"Std:Join": {"On": " ", "Values": ["got", {"Get": "Parameters.P"}]}}
    with pytest.raises(StepFailed, match="got 1"):
        fail({"Name": "S", "Type": "Fail", "Arguments": {"ErrorMessage": message}}, context)
    step = {"Name": "T", "Type": "Condition", "Arguments": {"Conditions": []}}
    assert decide(step, context) == {"Outcome": "True"}


def test_a_function_that_answers_no_object_gives_no_outputs(context: StepContext) -> None:
    answer = {"Payload": io.BytesIO(b"7")}
    context.clients["lambda"] = types.SimpleNamespace(invoke=lambda **_: answer)  # type: ignore[index]
    assert invoke({"Name": "S", "FunctionArn": "f"}, context) == {"OutputParameters": {}}


class Registry:
    """SageMaker's registry, whose group another step creates at the same moment."""

    def __init__(self) -> None:
        self.there = False
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def describe_model_package_group(self, ModelPackageGroupName: str) -> None:
        if not self.there:
            raise error("ValidationException")

    def create_model_package_group(self, ModelPackageGroupName: str) -> None:
        self.there = True
        raise error("ConflictException")

    def create_model_package(self, **arguments: Any) -> dict[str, str]:
        self.asked.append(("CreateModelPackage", arguments))
        return {"ModelPackageArn": "arn:aws:sagemaker:r:a:model-package/g/1"}

    def create_model(self, **arguments: Any) -> dict[str, str]:
        self.asked.append(("CreateModel", arguments))
        return {"ModelArn": "arn:model"}


def test_models_and_packages_are_created_as_the_api_takes_them(context: StepContext) -> None:
    """Judge: botocore's shapes of both requests."""
    registry = context.clients["sagemaker"] = Registry()  # type: ignore[index]
    package = {"ModelPackageGroupName": "g", "ModelMetrics": {"Bias": {}, "ModelQuality": {}}}
    step = {"Name": "S", "Type": "RegisterModel", "Arguments": package}
    assert register(step, context)["ModelPackageName"] == "g/1"
    model = {"ExecutionRoleArn": "arn:aws:iam::000000000000:role/team", "ModelName": "churn"}
    made = create({"Name": "T", "Type": "Model", "Arguments": model}, context)
    assert made["ModelName"].startswith("churn-abc123def456-")
    api = botocore.session.get_session().get_service_model("sagemaker")
    for operation, arguments in registry.asked:
        shape = api.operation_model(operation).input_shape
        report = botocore.validate.ParamValidator().validate(arguments, shape)
        assert not report.has_errors(), report.generate_report()


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (error("ThrottlingException"), "Step.THROTTLING"),
        (error("InternalFailure", 500), "Step.SERVICE_FAULT"),
        (error("ResourceLimitExceeded"), "SageMaker.RESOURCE_LIMIT"),
        (error("AccessDeniedException"), ""),
        (EndpointConnectionError(endpoint_url="http://x"), "Step.SERVICE_FAULT"),
        (JobLost("killed"), "SageMaker.JOB_INTERNAL_ERROR"),
        (StepFailed("exit code 1"), ""),
    ],
)
def test_errors_have_the_names_of_retry_policies(failure: Exception, kind: str) -> None:
    assert exception_type(failure) == kind
    assert reason_of(failure)


def policy(kind: str = "Step.THROTTLING", **limits: float) -> dict[str, Any]:
    return {"ExceptionType": [kind], "IntervalSeconds": 2, "BackoffRate": 3.0, **limits}


def tried(step: dict[str, Any], *failures: Exception) -> tuple[int, list[float]]:
    """Attempts, and pauses between them in seconds. A pause takes as long as it says."""
    left, pauses, numbers = list(failures), list[float](), list[int]()

    def attempt(number: int) -> None:
        numbers.append(number)
        if left:
            raise left.pop(0)

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        return False

    retried(step, attempt, wait, lambda: sum(pauses))
    assert numbers == list(range(1, len(numbers) + 1))
    return len(numbers), pauses


def test_retries_pause_longer_each_time_and_each_policy_counts_its_own() -> None:
    policies = [policy(MaxAttempts=2), policy("SageMaker.JOB_INTERNAL_ERROR", MaxAttempts=1)]
    step = {"Type": "Training", "RetryPolicies": policies}
    busy = error("ThrottlingException")
    assert tried(step, busy, JobLost("killed"), busy) == (4, [2, 2, 6])
    with pytest.raises(ClientError):
        tried(step, busy, busy, busy)
    with pytest.raises(StepFailed, match="exit code"):
        tried(step, StepFailed("exit code 1"))


def test_a_policy_that_has_expired_and_steps_without_policies_try_no_more() -> None:
    busy = error("ThrottlingException")
    expiring = {"Type": "Processing", "RetryPolicies": [policy(ExpireAfterMin=1)]}
    assert tried(expiring, busy, busy, busy)[0] == 4
    with pytest.raises(ClientError):
        tried(expiring, busy, busy, busy, busy, busy)
    with pytest.raises(ClientError):
        tried({"Type": "Callback", "RetryPolicies": [policy(MaxAttempts=5)]}, busy)
    with pytest.raises(ExecutionStopped):
        step = {"Type": "Training", "RetryPolicies": [policy(MaxAttempts=1)]}
        retried(step, lambda _: (_ for _ in ()).throw(busy), lambda _: True, lambda: 0.0)


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("30d", 30 * 86_400),
        ("5y", 5 * 365 * 86_400),
        ("T16m", 960),
        ("30dT5h", 30 * 86_400 + 18_000),
        ("PT1H", 3_600),
        ("P1M", 30 * 86_400),
        ("P2W", 14 * 86_400),
    ],
)
def test_durations_as_sagemakers_documentation_writes_them(duration: str, seconds: int) -> None:
    """https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-caching-enabling.html"""
    assert seconds_of(duration) == seconds


@pytest.mark.parametrize("duration", ["", "P", "T", "1", "1x", "d1", "-1d"])
def test_what_is_no_duration_is_refused(duration: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        seconds_of(duration)


def test_only_a_result_that_is_young_enough_and_of_the_same_attributes_is_taken() -> None:
    step = {"Name": "T", "Type": "Training", "CacheConfig": {"Enabled": True, "ExpireAfter": "T1m"}}
    given = {name: {"x": name} for name in KEYS["Training"]}
    key = cache_key(step, given)
    execution = PipelineExecution(ARN, "p", {}, {})
    execution.results["T"] = {"Key": key, "At": 1000.0, "Properties": {}, "Metadata": {}}
    assert cached(step, key, [execution], 1059.0) == (ARN, execution.results["T"])
    assert cached(step, key, [execution], 1061.0) is None
    assert cache_key(step, {**given, "RoleArn": "r", "OutputDataConfig": {}}) == key
    assert len({cache_key(step, {**given, name: 1}) for name in given}) == len(given)
    assert cache_key({**step, "Type": "Callback"}, given) == ""
    assert cache_key({**step, "CacheConfig": {"Enabled": False}}, given) == ""


def test_steps_that_wait_for_each_other_are_found() -> None:
    steps = [{"Name": n, "Type": "Lambda", "DependsOn": [d]} for n, d in ("AB", "BC", "CB")]
    assert circle(graph_of([*steps, {"Name": "D", "Type": "Lambda"}])) == ["A", "B", "C"]


def test_metrics_are_the_last_that_a_log_shows() -> None:
    definitions = [{"Name": "rmse", "Regex": "rmse: (.*?);"}, {"Name": "none", "Regex": "n=(.)"}]
    lines = ["rmse: 2.5;", "rmse: 1.5;", "rmse: high;"]
    assert training.metrics_of(definitions, lines) == {"rmse": 1.5}


def test_addresses_and_paths_outside_are_refused(tmp_path: Path) -> None:
    for uri in ("file:///etc", "s3://", 7):
        with pytest.raises(StepFailed, match="not an address in S3"):
            data.bucket_and_key(uri)
    for path in ("/etc", "/opt/ml/../../etc", "relative"):
        with pytest.raises(StepFailed, match="does not lie below /opt/ml"):
            processing.below(tmp_path, path)
    assert processing.below(tmp_path, "/opt/ml/model") == tmp_path / "model"


def test_a_manifest_names_objects(tmp_path: Path) -> None:
    s3 = MemoryS3()
    s3.data = {
        "b/list": b'[{"prefix": "s3://b/d/"}, "x/1.txt", "2.txt"]',
        "b/d/x/1.txt": b"1",
        "b/d/2.txt": b"2",
    }
    data.download_manifest(s3, "s3://b/list", tmp_path, 100)
    assert sorted(f.name for f in tmp_path.rglob("*.txt")) == ["1.txt", "2.txt"]
    s3.data["b/list"] = b'{"prefix": 1}'
    with pytest.raises(StepFailed, match="is not a manifest"):
        data.download_manifest(s3, "s3://b/list", tmp_path, 100)


def test_a_program_that_is_missing_is_named_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "trian.py").touch()
    with pytest.raises(StepFailed, match=r"has no train.py; it has trian.py"):
        script_mode.command("train.py", tmp_path, [])


def test_a_command_that_cannot_be_started_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert enter("", "/nowhere/at/all", ["true"]) == CANNOT_START
    assert "true cannot be started" in capsys.readouterr().err


def test_a_jobs_python_is_an_environment_of_its_own(tmp_path: Path) -> None:
    programs = make_environment(tmp_path)
    code = "import sys, msgspec; print(sys.prefix)"
    command = [str(programs / "python"), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path)


def test_a_stand_in_answers_with_properties(tmp_path: Path) -> None:
    (tmp_path / "given").write_text('{"x": 1}')
    file = tmp_path / "mine.py"
    file.write_text("def f(arguments): return {'y': arguments['x']}\nnone = None")
    answer = str(tmp_path / "answer")
    assert call_stand_in(str(file), "f", str(tmp_path / "given"), answer) == 0
    assert json.loads(Path(answer).read_text()) == {"y": 1}
    assert call_stand_in(str(file), "none", str(tmp_path / "given"), answer) == 2


def test_jobs_of_other_kinds_need_a_stand_in(context: StepContext) -> None:
    with pytest.raises(StepFailed, match="cannot run a Tuning step"):
        run_job({"Name": "S", "Type": "Tuning"}, context)
    job = Job(name="n", arn="a", pipeline="p", step="s", kind="Processing", arguments={})
    assert job.seconds == 86_400
    with pytest.raises(KeyError):
        context.jobs.run(job, threading.Event())


def test_a_definition_from_s3_is_checked_and_kept_whole() -> None:
    kept: list[dict[str, Any]] = []
    texts = {"good": b'{"Steps": []}', "bad": b'{"Steps": 1}'}
    for name, text in texts.items():
        act = checked(lambda r: kept.append(r.params), lambda _b, _k, t=text: t, lambda: False)
        location = {"Bucket": "b", "ObjectKey": name}
        given = types.SimpleNamespace(params={"PipelineDefinitionS3Location": location})
        if name == "good":
            act(given)
        else:
            with pytest.raises(type(invalid("")), match="no list of Steps"):
                act(given)
    assert kept == [{"PipelineDefinition": '{"Steps": []}'}]


def test_what_an_earlier_version_kept_is_not_checked_again() -> None:
    done: list[Any] = []
    act = checked(done.append, lambda _b, _k: b"", lambda: True)
    act(types.SimpleNamespace(params={"PipelineDefinition": "not JSON"}))
    assert done


class Iam:
    def get_role(self, RoleName: str) -> None:
        if RoleName != "known":
            raise error("NoSuchEntity", 404)


class Sts:
    def assume_role(self, RoleArn: str, RoleSessionName: str) -> dict[str, Any]:
        keys = {"AccessKeyId": "K", "SecretAccessKey": "S", "SessionToken": "T"}
        return {"Credentials": keys}


def test_a_role_that_the_account_lacks_acts_as_the_account() -> None:
    made = {"iam": Iam(), "sts": Sts(), "sqs": object()}
    roles = Roles(made.__getitem__)
    team = "arn:aws:iam::111122223333:role/known"
    assert roles.clients(team)["sqs"] is made["sqs"]
    assert roles.credentials(team) == roles.credentials("") == {}
    assert roles.credentials("arn:aws:iam::000000000000:role/other") == {}
    known = roles.credentials("arn:aws:iam::000000000000:role/known")
    assert known["AWS_SESSION_TOKEN"] == "T"
