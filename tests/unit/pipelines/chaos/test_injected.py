"""Errors injected into AWS calls: which calls get one, and that clients take it as AWS's."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from pipelines.chaos.faults.catalogue import ERRORS
from pipelines.chaos.faults.replay import RECORD
from pipelines.chaos.injected import VARIABLE, ControlFile, InjectedError, Injector, install
from pipelines.local.child import HOOK, call_hook

ALWAYS = InjectedError(service="dynamodb", share=1.0, status=400, code="ThrottlingException")
ONCE = Config(retries={"total_max_attempts": 1})


def client(service: str, injector: Injector) -> Any:
    """A client that can reach nothing but the injector."""
    made = boto3.client(service, endpoint_url="http://127.0.0.1:1", config=ONCE)
    made.meta.events.register("before-send.*", injector)
    return made


@pytest.fixture
def control(tmp_path: Path) -> ControlFile:
    return ControlFile(tmp_path / "chaos.json", s3_port=1234)


@pytest.fixture
def injector(tmp_path: Path) -> Injector:
    return Injector(tmp_path / "chaos.json", random.Random(1))


def test_a_client_takes_an_injected_error_for_the_services_own(
    control: ControlFile, injector: Injector
) -> None:
    with control.failing(ALWAYS), pytest.raises(ClientError, match="ThrottlingException"):
        client("dynamodb", injector).list_tables()
    slow_down = InjectedError(service="s3", share=1.0, status=503, code="SlowDown")
    with control.failing(slow_down), pytest.raises(ClientError, match="SlowDown"):
        client("s3", injector).list_buckets()


def test_errors_last_as_long_as_their_block_and_hit_their_service_only(
    control: ControlFile, injector: Injector
) -> None:
    with control.failing(ALWAYS):
        assert injector(Request(), "before-send.dynamodb.Query") is not None
        assert injector(Request(), "before-send.s3.GetObject") is None
    assert injector(Request(), "before-send.dynamodb.Query") is None


def test_a_share_of_the_calls_fails(control: ControlFile, injector: Injector) -> None:
    half = InjectedError(service="dynamodb", share=0.5)
    with control.failing(half):
        answers = [injector(Request(), "before-send.dynamodb.Query") for _ in range(200)]
    assert 60 < sum(answer is not None for answer in answers) < 140


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("s3", lambda made: made.list_buckets()),
        ("dynamodb", lambda made: made.list_tables()),
        ("stepfunctions", lambda made: made.send_task_heartbeat(taskToken="t")),
        ("iot-data", lambda made: made.publish(topic="t", payload=b"x")),
    ],
)
def test_every_rule_reaches_its_services_client(
    control: ControlFile, injector: Injector, name: str, call: Any
) -> None:
    rules = [rule for rule in (*ERRORS.values(), RECORD) if not rule.repeat]
    services = {rule.service for rule in rules}
    assert len(services) == 4
    failing = [InjectedError(service=service, share=1.0, code="Injected") for service in services]
    with control.failing(*failing), pytest.raises(ClientError, match="Injected"):
        call(client(name, injector))


def test_nested_blocks_end_independently(control: ControlFile, injector: Injector) -> None:
    other = InjectedError(service="sfn", share=1.0)
    with control.failing(ALWAYS):
        with control.failing(other):
            assert injector(Request(), "before-send.sfn.SendTaskHeartbeat") is not None
        assert injector(Request(), "before-send.sfn.SendTaskHeartbeat") is None
        assert injector(Request(), "before-send.dynamodb.Query") is not None


def test_without_a_control_file_nothing_is_injected(tmp_path: Path) -> None:
    assert Injector(tmp_path / "missing")(Request(), "before-send.s3.GetObject") is None


def test_children_of_the_local_cloud_install_it_by_their_hook(
    control: ControlFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in control.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "to be replaced")
    call_hook(control.environment()[HOOK])
    assert boto3.client("s3").meta.endpoint_url == "http://127.0.0.1:1234"
    with control.failing(ALWAYS), pytest.raises(ClientError):
        boto3.client("dynamodb", endpoint_url="http://127.0.0.1:1", config=ONCE).list_tables()
    assert VARIABLE in control.environment()
    assert install.__module__ in control.environment()[HOOK]


class Request:
    url = "http://127.0.0.1:1"
