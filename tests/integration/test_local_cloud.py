"""The local cloud itself: policies, rules, heartbeats, exit codes, persistence, side by side, clean
ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.commands import mledgeops
from support.devices import device, with_mqtt
from support.journeys import connections_that_end
from support.waiting import alive, children, until

from edge.agent.heartbeat import last_will
from edge.config import DeviceConfig
from edge.protocol.messages import Heartbeat, Reply, seal
from edge.transports import TransportError
from edge.transports.mqtt import MqttTransport
from fl_runtime.run.aws import DynamoReplies, client
from fl_runtime.run.devices import DeviceTable
from fl_runtime.run.keys import reply_key
from fl_runtime.run.state import RunState, RunTable
from pipelines.handlers import watch
from pipelines.local.cloud import LocalCloud
from pipelines.local.home import Home
from pipelines.local.processes import port_in_use


def test_a_heartbeat_reaches_the_table_under_the_name_of_its_certificate(
    reached: LocalCloud,
) -> None:
    config = device(reached, 0)

    async def work(transport: MqttTransport, heard: list) -> None:
        await transport.publish(f"fl/lab/{config.device}/heartbeat", seal(Heartbeat(state="idle")))

    with_mqtt(config, work)
    key = {"fleet": {"S": "lab"}, "device": {"S": config.device}}
    item = until(
        lambda: (
            client("dynamodb")
            .get_item(TableName=reached.deployment.devices_table, Key=key)
            .get("Item")
        )
    )
    assert float(item["last_seen"]["N"]) / 1000 == pytest.approx(time.time(), abs=60)
    assert float(item["expires_at"]["N"]) > time.time()


def test_a_device_cannot_speak_or_listen_for_another(
    reached: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = device(reached, 0)

    async def speak(transport: MqttTransport, heard: list) -> None:
        with pytest.raises(TransportError, match="refused"):
            await transport.publish(
                "fl/lab/lab-0001/reply",
                seal(Reply(run="run-1", phase="p", message_id="m", status="ok"), "k"),
            )

    async def listen() -> None:
        transport = MqttTransport(config, will=last_will(config))
        with pytest.raises(TransportError, match="does not allow"):
            await transport.connect(["fl/lab/lab-0001/command"], lambda topic, payload: None)
        assert ended, "a connection that is refused what it wants does not stay open"

    with_mqtt(config, speak)
    ended = connections_that_end(monkeypatch)
    asyncio.run(listen())


def test_a_device_cannot_connect_under_another_name_or_without_a_certificate_of_ours(
    reached: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.transports.mqtt_connection.CONNECT_SECONDS", 3.0)
    config = device(reached, 0)
    impostor = DeviceConfig(
        **{**{f: getattr(config, f) for f in config.__struct_fields__}, "device": "lab-0009"}
    )

    async def main() -> None:
        transport = MqttTransport(impostor, will=last_will(impostor))
        with pytest.raises(TransportError):
            await transport.connect(["fl/lab/lab-0009/command"], lambda topic, payload: None)

    asyncio.run(main())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_device_that_drops_is_known_to_be_offline(
    reached: LocalCloud, how: signal.Signals
) -> None:
    """The agent as a device runs it: by its broker's last will when it is cut off, by its own word
    when it is stopped.
    """
    config = device(reached, 3 if how == signal.SIGKILL else 2, fleet="drops")
    key = {"fleet": {"S": "drops"}, "device": {"S": config.device}}

    def state() -> str:
        item = (
            client("dynamodb")
            .get_item(TableName=reached.deployment.devices_table, Key=key)
            .get("Item")
        )
        return json.loads(item["body"]["S"])["state"] if item else ""

    agent = subprocess.Popen(
        [sys.executable, "-m", "edge.agent", str(Path(config.home) / "device.json")],
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: state() == "idle")
        agent.send_signal(how)
        until(lambda: state() == "offline")
        code = agent.wait(20)
    finally:
        agent.kill()
        agent.wait()
    assert code == (0 if how == signal.SIGTERM else -signal.SIGKILL)


def test_an_agent_without_its_files_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge.agent", str(tmp_path / "none.json")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "cannot be read" in done.stderr


def test_a_reply_is_stored_with_the_sender_from_its_topic(reached: LocalCloud) -> None:
    config = device(reached, 1)
    key = reply_key("run-x", "00001-train-0001", "c0000")

    async def work(transport: MqttTransport, heard: list) -> None:
        forged = json.loads(
            seal(Reply(run="run-x", phase="00001-train-0001", message_id="m", status="ok"), key)
        )
        # Names in the payload count for nothing.
        await transport.publish(
            f"fl/lab/{config.device}/reply",
            json.dumps({**forged, "device": "lab-0000", "fleet": "other"}).encode(),
        )

    with_mqtt(config, work)
    rows = until(
        lambda: DynamoReplies(client("dynamodb"), reached.deployment.replies_table).read(key)
    )
    assert [(row.fleet, row.device) for row in rows] == [("lab", config.device)]


def test_a_device_is_heard_in_its_things_fleet_only(reached: LocalCloud) -> None:
    config = device(reached, 1)

    for fleet in ("other", "lab"):

        async def work(transport: MqttTransport, heard: list, fleet: str = fleet) -> None:
            # The broker may end the connection of a device that publishes where it must not.
            with contextlib.suppress(TransportError):
                await transport.publish(
                    f"fl/{fleet}/{config.device}/heartbeat", seal(Heartbeat(state="idle"))
                )

        with_mqtt(config, work)
    table = DeviceTable(client("dynamodb"), reached.deployment.devices_table)
    until(lambda: [row for row in table.fleet("lab") if row.device == config.device])
    assert [row for row in table.fleet("other") if row.device == config.device] == []


def test_a_command_reaches_its_device_only(reached: LocalCloud) -> None:
    config = device(reached, 2)

    async def work(transport: MqttTransport, heard: list) -> None:
        publish = client("iot-data").publish
        await asyncio.to_thread(
            publish, topic="fl/lab/lab-0001/command", qos=1, payload=b"not mine"
        )
        await asyncio.to_thread(
            publish, topic=f"fl/lab/{config.device}/command", qos=1, payload=b"mine"
        )
        for _ in range(100):
            if heard:
                return
            await asyncio.sleep(0.05)

    assert [payload for _, payload in with_mqtt(config, work)] == [b"mine"]


def test_a_private_key_is_readable_by_its_owner_only(reached: LocalCloud) -> None:
    assert Path(device(reached, 0).private_key).stat().st_mode & 0o077 == 0


def test_a_run_is_created_once_and_stays_as_it_ended(reached: LocalCloud) -> None:
    table = RunTable(client("dynamodb"), reached.deployment.runs_table)
    assert table.create(RunState(run="run-a", state="Starting", created_at=1.5))
    assert not table.create(RunState(run="run-a", state="Starting"))
    assert table.update("run-a", state="Running", finished_round=3)
    assert table.get("run-a") == RunState(
        run="run-a", state="Running", finished_round=3, created_at=1.5
    )
    assert table.update("run-a", state="Failed", reason="x")
    assert not table.update("run-a", state="Succeeded"), "a late writer changes nothing"
    assert not table.update("run-b", state="Running")
    assert table.get("run-b") is None


def machine(task: dict[str, Any], name: str, cloud: LocalCloud) -> str:
    steps = client("stepfunctions")
    text = json.dumps({"StartAt": "T", "States": {"T": {"Type": "Task", "End": True, **task}}})
    made = steps.create_state_machine(
        name=name, definition=text, roleArn=cloud.deployment.role("state-machine")
    )
    return steps.start_execution(stateMachineArn=made["stateMachineArn"])["executionArn"]


def ended(execution: str) -> dict:
    steps = client("stepfunctions")
    return until(
        lambda: (d := steps.describe_execution(executionArn=execution))["status"] != "RUNNING" and d
    )


def task_definition(cloud: LocalCloud, module: str, family: str = "") -> str:
    container = {
        "name": "probe",
        "image": "none",
        "command": ["python", "-m", module],
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {"awslogs-group": cloud.deployment.log_group("proxy")},
        },
    }
    name = family or f"probe-{module}"
    client("ecs").register_task_definition(
        family=name,
        requiresCompatibilities=["FARGATE"],
        networkMode="awsvpc",
        cpu="256",
        memory="512",
        taskRoleArn=cloud.deployment.role("proxy"),
        containerDefinitions=[container],
    )
    return name


def run_task(cloud: LocalCloud, family: str, token: bool = False, path: str = "") -> dict[str, Any]:
    environment = [{"Name": "MLEDGEOPS_RUN", "Value": "probe"}]
    if path:
        environment.append({"Name": "PYTHONPATH", "Value": path})
    if token:
        environment.append({"Name": "MLEDGEOPS_TASK_TOKEN", "Value.$": "$$.Task.Token"})
    return {
        "Cluster": cloud.deployment.cluster,
        "TaskDefinition": family,
        "LaunchType": "FARGATE",
        "Overrides": {"ContainerOverrides": [{"Name": "probe", "Environment": environment}]},
    }


def test_exit_codes_of_tasks_decide(reached: LocalCloud) -> None:
    good = machine(
        {
            "Resource": "arn:aws:states:::ecs:runTask.sync",
            "Parameters": run_task(reached, task_definition(reached, "this")),
        },
        "good",
        reached,
    )
    bad = machine(
        {
            "Resource": "arn:aws:states:::ecs:runTask.sync",
            "Parameters": run_task(reached, task_definition(reached, "edge.agent")),
        },
        "bad",
        reached,
    )
    assert ended(good)["status"] == "SUCCEEDED"
    failed = ended(bad)
    assert (failed["status"], failed["error"]) == ("FAILED", "States.TaskFailed")
    assert "exited with code" in failed["cause"]


def test_a_server_that_dies_with_its_token_fails_at_once(reached: LocalCloud) -> None:
    """By ECS's event, its rule and the function that watches, as on AWS."""
    family = task_definition(reached, "edge.agent", reached.deployment.task_family("server"))
    task = {
        "Resource": "arn:aws:states:::ecs:runTask.waitForTaskToken",
        "Parameters": run_task(reached, family, token=True),
    }
    failed = ended(machine(task, "dies", reached))
    assert (failed["status"], failed["error"]) == ("FAILED", "ServerCrashed")
    assert "exited with code" in failed["cause"]


class _Running:
    """Step Functions with one execution under way."""

    def get_paginator(self, _: str) -> Any:
        pages = [{"executions": [{"name": "hangs"}]}]
        return SimpleNamespace(paginate=lambda **_: pages)


def test_a_server_that_hangs_after_its_first_beat_is_stopped(
    reached: LocalCloud, tmp_path: Path
) -> None:
    (tmp_path / "hanging.py").write_text("import time\ntime.sleep(300)\n")
    ecs, cluster = client("ecs"), reached.deployment.cluster
    family = task_definition(reached, "hanging", reached.deployment.task_family("server"))
    before = set(ecs.list_tasks(cluster=cluster)["taskArns"])
    task = {
        "Resource": "arn:aws:states:::ecs:runTask.waitForTaskToken",
        "Parameters": run_task(reached, family, token=True, path=str(tmp_path)),
    }
    execution = machine(task, "hangs", reached)
    arn = until(lambda: set(ecs.list_tasks(cluster=cluster)["taskArns"]) - before).pop()
    # Only a server that runs has beaten; the agent tells nothing of a task that it never started.
    log = reached.home.logs / "cloud.log"
    until(lambda: f'"task": "{arn}"' in log.read_text())
    runs = RunTable(client("dynamodb"), reached.deployment.runs_table)
    runs.create(RunState(run="run-hangs", state="Running", task=arn, beat_at=100.0))
    aws = SimpleNamespace(steps=_Running(), runs=runs, state_machine="arn")
    assert watch.stop_silent(aws, ecs, cluster, now=150.0) == []
    assert watch.stop_silent(aws, ecs, cluster, now=161.0) == [arn]
    failed = ended(execution)
    assert (failed["status"], failed["error"]) == ("FAILED", "ServerCrashed")
    assert "has not been heard of for 60 s" in failed["cause"]


def test_a_silent_task_misses_its_heartbeat(reached: LocalCloud) -> None:
    queue = client("sqs").create_queue(QueueName="silent")["QueueUrl"]
    message = {"QueueUrl": queue, "MessageBody": {"token.$": "$$.Task.Token"}}
    task = {
        "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
        "HeartbeatSeconds": 1,
        "Parameters": message,
    }
    failed = ended(machine(task, "silent", reached))
    assert (failed["status"], failed["error"]) == ("FAILED", "States.HeartbeatTimeout")


def test_roles_are_enforced(reached: LocalCloud) -> None:
    given = client("sts").assume_role(
        RoleArn=reached.deployment.role("proxy"), RoleSessionName="test"
    )["Credentials"]
    import boto3

    as_proxy = boto3.client(
        "dynamodb",
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
    )
    as_proxy.get_item(TableName=reached.deployment.runs_table, Key={"run": {"S": "x"}})
    with pytest.raises(ClientError, match="not authorized"):
        as_proxy.scan(TableName=reached.deployment.devices_table)


def test_a_model_package_keeps_what_an_update_does_not_mention(reached: LocalCloud) -> None:
    sagemaker = client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName="keep")
    arn = sagemaker.create_model_package(
        ModelPackageGroupName="keep",
        ModelApprovalStatus="PendingManualApproval",
        CustomerMetadataProperties={"a": "1"},
        InferenceSpecification={
            "Containers": [{"Image": "i", "ModelDataUrl": "s3://b/k"}],
            "SupportedContentTypes": [],
            "SupportedResponseMIMETypes": [],
        },
    )["ModelPackageArn"]
    sagemaker.update_model_package(ModelPackageArn=arn, CustomerMetadataProperties={"b": "2"})
    found = sagemaker.describe_model_package(ModelPackageName=arn)
    assert found["CustomerMetadataProperties"] == {"a": "1", "b": "2"}
    assert found["ModelApprovalStatus"] == "PendingManualApproval"


def test_an_unknown_callback_token_is_refused(reached: LocalCloud) -> None:
    with pytest.raises(ClientError, match="unknown or has been answered"):
        client("sagemaker").send_pipeline_execution_step_success(CallbackToken="AAAAAAAAAA")


def test_two_clouds_run_side_by_side_and_end_cleanly(cloud: LocalCloud, tmp_path: Path) -> None:
    with LocalCloud.start(Home(tmp_path)) as other:
        assert {other.info.gateway_port, other.info.mqtt_port}.isdisjoint(
            {cloud.info.gateway_port, cloud.info.mqtt_port}
        )
        with other.reached():
            client("s3").put_object(Bucket=other.deployment.bucket, Key="mine", Body=b"1")
            client("sagemaker").create_model_package_group(ModelPackageGroupName="kept")
        with cloud.reached():
            assert "Contents" not in client("s3").list_objects_v2(
                Bucket=cloud.deployment.bucket, Prefix="mine"
            )
        ports = (other.info.gateway_port, other.info.mqtt_port, other.info.sagemaker_port)
    assert not any(port_in_use(port) for port in ports)
    with LocalCloud.start(Home(tmp_path)) as again, again.reached():
        assert (
            client("s3").get_object(Bucket=again.deployment.bucket, Key="mine")["Body"].read()
            == b"1"
        )
        groups = client("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"]
        assert [group["ModelPackageGroupName"] for group in groups] == ["kept"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_cloud_whose_owner_dies_leaves_nothing_behind(
    tmp_path: Path, how: signal.Signals
) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from pipelines.local.cloud import LocalCloud\nfrom pipelines.local.home import Home\n"
        f"c = LocalCloud.start(Home(Path({str(tmp_path)!r})))\n"
        "print(c.info.pid, flush=True)\ntime.sleep(100)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    daemon = int(owner.stdout.readline())
    pids = [daemon, *children(daemon)]
    assert len(pids) >= 2
    owner.send_signal(how)
    owner.wait()
    until(lambda: not any(alive(pid) for pid in pids), 30)
    assert Home(tmp_path).info() is None


def test_a_cloud_that_is_killed_takes_its_emulator_with_it(tmp_path: Path) -> None:
    cloud = LocalCloud.start(Home(tmp_path))
    pids = children(cloud.info.pid)
    assert pids
    os.kill(cloud.info.pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in pids), 30)
    cloud.stop()
    assert Home(tmp_path).info() is None, (
        "a file left behind by a cloud that died counts for nothing"
    )


def test_local_up_status_down(tmp_path: Path, cloud: LocalCloud) -> None:
    busy = mledgeops(
        "local", "up", "--gateway-port", str(cloud.info.gateway_port), home=tmp_path, check=2
    )
    assert "in use" in busy.stderr
    assert "Traceback" not in busy.stderr
    mledgeops("local", "status", home=tmp_path, check=1)
    up = json.loads(mledgeops("local", "up", "--json", home=tmp_path).stdout)
    try:
        assert "already" in mledgeops("local", "up", home=tmp_path, check=2).stderr
        assert (
            json.loads(mledgeops("local", "status", "--json", home=tmp_path).stdout)["pid"]
            == up["pid"]
        )
    finally:
        mledgeops("local", "down", home=tmp_path)
    assert not alive(up["pid"])
    assert "No local cloud" in mledgeops("local", "down", home=tmp_path, check=2).stderr
