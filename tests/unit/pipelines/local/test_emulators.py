"""What the emulators lack: calls on record, tasks as processes, log streams, policies for moto."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.paths import ROOT

from pipelines.local.emulators.authority import Authority, sagemaker_resource
from pipelines.local.emulators.calls import CallLog, role_of
from pipelines.local.emulators.ecs_agent import EcsAgent, task_spec
from pipelines.local.emulators.ecs_task import BATCH_LINES, EcsTask, LogStream, TaskSpec
from pipelines.local.emulators.metric_filters import MetricFilters

SESSION = "arn:aws:sts::000000000000:assumed-role/mledgeops-server/task"


def test_each_call_is_on_record_once_and_a_key_leads_to_its_session(tmp_path: Path) -> None:
    calls = CallLog(tmp_path / "calls")
    for _ in range(2):
        calls.write(principal=SESSION, action="s3:GetObject", resource="*", decision="Allow")
    calls.write(session="KEY", principal=SESSION)
    assert len(list(calls.lines())) == 2
    assert CallLog(tmp_path / "calls").principal("KEY") == SESSION
    assert calls.principal("test") is None
    assert role_of(SESSION) == "mledgeops-server"
    assert role_of("arn:aws:iam::1:role/deploy") == "deploy"
    assert role_of("arn:aws:iot:r:1:cert/abc") == ""


class Iam:
    def __init__(self, decision: str) -> None:
        self.decision = decision

    def simulate_principal_policy(self, **asked: Any) -> dict:
        assert asked["PolicySourceArn"].endswith(":role/mledgeops-server")
        return {"EvaluationResults": [{"EvalDecision": self.decision}]}


@pytest.mark.parametrize(("decision", "allowed"), [("allowed", True), ("implicitDeny", False)])
def test_a_roles_policy_decides_and_the_accounts_own_key_may_do_anything(
    tmp_path: Path, decision: str, allowed: bool
) -> None:
    calls = CallLog(tmp_path / "calls")
    calls.write(session="KEY", principal=SESSION)
    authority = Authority(Iam(decision), calls)
    assert authority.allows("KEY", "sagemaker:DescribePipeline", "*") is allowed
    assert authority.allows("test", "sagemaker:DeletePipeline", "*")
    assert [line.get("decision") for line in calls.lines()] == [
        None,
        "Allow" if allowed else "Deny",
    ]


@pytest.mark.parametrize(
    ("params", "resource"),
    [
        ({}, "*"),
        ({"PipelineName": "p"}, "arn:aws:sagemaker:us-east-1:000000000000:pipeline/p"),
        ({"ModelPackageName": "arn:x"}, "arn:x"),
        ({"ModelPackageName": "", "PipelineName": "arn:p"}, "arn:p"),
    ],
)
def test_a_sagemaker_call_is_about_the_resource_that_it_names(params: dict, resource: str) -> None:
    assert sagemaker_resource(params) == resource


class Logs:
    """CloudWatch Logs in memory."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.streams: list[str] = []

    def create_log_stream(self, logGroupName: str, logStreamName: str) -> None:
        if logStreamName in self.streams:
            raise ClientError({"Error": {"Code": "ResourceAlreadyExistsException"}}, "Create")
        self.streams.append(logStreamName)

    def put_log_events(self, logEvents: list[dict], **_: str) -> None:
        self.batches.append([item["message"] for item in logEvents])


def test_log_lines_are_sent_in_batches_and_a_stream_is_created_once() -> None:
    logs = Logs()
    for _ in range(2):
        LogStream(logs, "g", "s").create()
    assert logs.streams == ["s"]
    stream = LogStream(logs, "g", "s")
    for number in range(BATCH_LINES + 1):
        stream.write(f"{number}\n".encode())
    stream.flush()
    stream.flush()
    assert [len(batch) for batch in logs.batches] == [BATCH_LINES, 1]
    stream.write(b"\n")
    stream.flush()
    assert logs.batches[-1] == [" "], "CloudWatch takes no empty message"


def task_definition(module: str) -> dict:
    return {
        "taskRoleArn": "arn:role",
        "containerDefinitions": [
            {
                "name": "server",
                "command": ["python", "-m", module],
                "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}],
                "logConfiguration": {"options": {"awslogs-group": "/mledgeops/server"}},
            }
        ],
    }


def test_a_tasks_log_is_named_after_run_container_and_cohort(tmp_path: Path) -> None:
    environment = {"MLEDGEOPS_RUN": "run-1", "MLEDGEOPS_COHORT": "c0000"}
    spec = task_spec("arn/t", task_definition("m"), environment, tmp_path)
    assert spec.log == tmp_path / "run-1-server-c0000.log"
    assert (spec.module, spec.group) == ("m", "/mledgeops/server")


def test_a_tasks_output_goes_to_its_file_and_its_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hello.py").write_text("import os\nprint('hello', os.environ['WHO'])\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    logs = Logs()
    spec = TaskSpec(
        arn="arn:task/c/t1",
        container="server",
        module="hello",
        environment={"WHO": "world"},
        log=tmp_path / "logs" / "task.log",
        group="g",
    )
    task = EcsTask(spec, logs)
    assert task.process.wait(30) == 0
    task.finish()
    assert spec.log.read_text() == "hello world\n"
    assert logs.batches == [["hello world"]]
    assert logs.streams == ["server/t1"]


class Ecs:
    """ECS with one task that runs a module, until it is stopped."""

    def __init__(self, module: str, old: list[str]) -> None:
        self.module, self.running, self.stopped = module, list(old), []

    def get_paginator(self, name: str) -> Any:
        assert name == "list_tasks"
        return SimpleNamespace(
            paginate=lambda **_: [{"taskArns": self.running[:1]}, {"taskArns": self.running[1:]}]
        )

    def describe_tasks(self, cluster: str, tasks: list[str]) -> dict:
        override = {"environment": [{"name": "B", "value": "2"}]}
        return {
            "tasks": [
                {
                    "taskArn": arn,
                    "taskDefinitionArn": "arn:definition",
                    "lastStatus": "RUNNING" if arn in self.running else "STOPPED",
                    "overrides": {"containerOverrides": [override]},
                }
                for arn in tasks
            ]
        }

    def describe_task_definition(self, taskDefinition: str) -> dict:
        assert taskDefinition
        return {"taskDefinition": task_definition(self.module)}

    def stop_task(self, cluster: str, task: str, reason: str) -> None:
        self.running.remove(task)
        self.stopped.append((task, reason))


class Events:
    def __init__(self) -> None:
        self.entries: list[dict] = []

    def put_events(self, Entries: list[dict]) -> None:
        self.entries += Entries


class Sts:
    def assume_role(self, **_: Any) -> dict:
        keys = ("AccessKeyId", "SecretAccessKey", "SessionToken")
        return {"Credentials": dict.fromkeys(keys, "x")}


def test_the_agent_runs_tasks_and_tells_that_one_has_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dies.py").write_text(
        "import os, sys\nprint(os.environ['A'], os.environ['B'])\nsys.exit(3)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    ecs, events = Ecs("dies", old=["arn:old"]), Events()
    clients = {"ecs": ecs, "events": events, "sts": Sts(), "logs": Logs()}
    agent = EcsAgent("c", clients, {}, tmp_path / "logs")
    agent._stop_old_tasks()
    assert ecs.stopped == [("arn:old", "The local cloud was restarted.")]
    ecs.running.append("arn:task/c/new")
    agent._start_new(agent._running())
    deadline = time.monotonic() + 30
    while len(ecs.stopped) < 2 and time.monotonic() < deadline:
        agent._reap()
        time.sleep(0.05)
    assert ecs.stopped[1] == ("arn:task/c/new", "Essential container exited with code 3")
    (stopped,) = events.entries
    assert (stopped["Source"], stopped["DetailType"]) == ("aws.ecs", "ECS Task State Change")
    assert json.loads(stopped["Detail"])["lastStatus"] == "STOPPED"
    assert (tmp_path / "logs" / "task-server.log").read_text() == "1 2\n"
    agent.stop()
    agent.serve()


def test_the_agent_ends_a_task_that_was_stopped_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "waits.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    ecs = Ecs("waits", old=[])
    events = Events()
    clients = {"ecs": ecs, "events": events, "sts": Sts(), "logs": Logs()}
    agent = EcsAgent("c", clients, {}, tmp_path / "logs")
    ecs.running += ["arn:task/c/one", "arn:task/c/two"]
    agent._start_new(agent._running())
    one, two = (agent._tasks[arn].process for arn in list(ecs.running))
    ecs.stop_task("c", "arn:task/c/one", "asked to")
    agent._end_stopped(agent._running())
    assert one.poll() is not None
    assert two.poll() is None
    assert [entry["Resources"] for entry in events.entries] == [["arn:task/c/one"]]
    agent.stop()
    agent.serve()
    assert two.poll() is not None


class Pages:
    def __init__(self, **pages: list[dict]) -> None:
        self.pages = pages

    def get_paginator(self, name: str) -> Any:
        found = self.pages[name]

        class Paginator:
            def paginate(self, **_: Any) -> list[dict]:
                return found

        return Paginator()


class CloudWatch:
    def __init__(self) -> None:
        self.data: list[dict] = []

    def put_metric_data(self, Namespace: str, MetricData: list[dict]) -> None:
        assert Namespace == "N"
        self.data += MetricData


def test_log_events_become_metric_data_once_each() -> None:
    rule = {"metricNamespace": "N", "metricName": "Rounds", "metricValue": "$.n"}
    described = {
        "logGroupName": "g",
        "filterPattern": '{ $.event = "round" }',
        "metricTransformations": [rule],
    }
    event = {"logStreamName": "s", "timestamp": int(time.time() * 1000)}
    events = [
        {**event, "eventId": "1", "message": '{"event": "round", "n": 2}'},
        {**event, "eventId": "2", "message": '{"event": "other", "n": 3}'},
        {**event, "message": "no JSON"},
        {**event, "message": '{"_aws": {"CloudWatchMetrics": [{}]}}'},
    ]
    logs = Pages(
        describe_metric_filters=[{"metricFilters": [described]}],
        filter_log_events=[{"events": events}],
    )
    cloudwatch = CloudWatch()
    filters = MetricFilters(logs, cloudwatch)
    filters.load()
    filters.poll()
    filters.poll()
    assert [(datum["MetricName"], datum["Value"]) for datum in cloudwatch.data] == [("Rounds", 2.0)]
