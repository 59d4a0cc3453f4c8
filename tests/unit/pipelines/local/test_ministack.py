"""Our patches of the emulator, each around a stand-in of the function that it wraps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ministack.services import dynamodb, iot

from pipelines.local.emulators.calls import CallLog
from pipelines.local.emulators.ministack import (
    broker,
    expressions,
    iam,
    provisioning,
    step_functions,
    thing_attributes,
    vpc_endpoints,
)


def test_loopback_meets_the_conditions_that_it_cannot_have() -> None:
    resolve = iam._resolve_loopback(lambda key, ctx: f"asked {key}")
    context = SimpleNamespace(principal_account="1")
    assert resolve("aws:SecureTransport", context) == "true"
    assert resolve("aws:SourceAccount", context) == "1"
    assert resolve("aws:SourceIp", context) == "asked aws:SourceIp"


@pytest.mark.parametrize(
    ("caller", "seen"),
    [
        ("arn:aws:sts::1:assumed-role/r/session", "arn:aws:iam::1:role/r"),
        ("arn:aws:iam::1:root", "asked aws:PrincipalArn"),
        ("", "asked aws:PrincipalArn"),
    ],
)
def test_a_session_is_its_role_to_a_policys_condition(caller: str, seen: str) -> None:
    resolve = iam._resolve_loopback(lambda key, ctx: f"asked {key}")
    context = SimpleNamespace(principal_account="1", principal_arn=caller)
    assert resolve("aws:PrincipalArn", context) == seen


def test_decisions_on_devices_roles_and_sessions_are_recorded(tmp_path: Path) -> None:
    calls = CallLog(tmp_path / "calls")
    context = SimpleNamespace(principal_arn="p", action="iot:Publish", resource_arn="t")
    decision = SimpleNamespace(decision="Deny")
    assert iam._record_devices(lambda *_: decision, calls)(context) is decision
    assert iam._record_provisioning(lambda *_: True, calls)("role", [("iot:CreateThing", "*")])
    assert iam._record_sessions(lambda *_: 7, calls)("KEY", {"Arn": "session"}) == 7
    lines = list(calls.lines())
    assert [line.get("decision") for line in lines] == ["Deny", "Allow", None]
    assert calls.principal("KEY") == "session"


def test_a_signing_request_has_a_topic_and_others_go_on() -> None:
    parse = provisioning._parse_topic(lambda topic: ("other", topic))
    assert parse(provisioning.TOPIC) == (provisioning.OPERATION, None)
    assert parse("x") == ("other", "x")

    async def original(*arguments: Any) -> str:
        return f"original {arguments[2]}"

    reply = provisioning._answer(original)
    assert asyncio.run(reply("1", "r", "register", None, b"", {})) == "original register"
    kind, body = asyncio.run(reply("1", "r", provisioning.OPERATION, None, b"garbage", {}))
    assert (kind, body["statusCode"]) == ("rejected", 400)


@pytest.mark.parametrize(
    ("moment", "seconds"), [(5, 5.0), (None, 0.0), ("1970-01-01T00:00:05Z", 5.0)]
)
def test_a_heartbeats_moment_is_read_as_the_emulator_keeps_it(moment: Any, seconds: float) -> None:
    assert step_functions._epoch(moment) == seconds


def test_the_agents_reason_holds_the_exit_code() -> None:
    found = step_functions.EXIT_CODE.search("Essential container exited with code -9")
    assert found is not None
    assert found.group(1) == "-9"
    assert step_functions.EXIT_CODE.search("Essential container in task exited") is None


def test_a_policy_may_name_an_attribute_of_the_connected_thing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(thing_attributes, "_attributes", lambda *names: {"asked": names[-1]})
    attached = thing_attributes._with_attributes(
        lambda *_: {"iot:connection.thing.thingname": "d1"}
    )
    assert attached("a", "r", "c", "d1")["asked"] == "d1"
    stranger = thing_attributes._with_attributes(lambda *_: {"iot:clientid": "d1"})
    assert "asked" not in stranger("a", "r", "c", "d1")
    names = thing_attributes.VARIABLE.findall("${iot:A.Attributes[fleet]}/${iot:ClientId}/${x}")
    assert names == ["iot:A.Attributes[fleet]", "iot:ClientId"]


@pytest.fixture
def indexed_broker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The emulator's own broker, with the index, and nothing subscribed."""
    for name in ("_subscriptions", "broker_publish", "broker_subscribe", "broker_unsubscribe"):
        monkeypatch.setattr(iot, name, {} if name == "_subscriptions" else getattr(iot, name))
    monkeypatch.setattr(iot, "_broker_lock", asyncio.Lock())
    broker.index_subscriptions()
    return iot


def test_messages_reach_exact_and_wildcard_subscriptions_and_no_others(indexed_broker: Any) -> None:
    received: list[tuple[str, str]] = []

    async def subscribe(name: str) -> str:
        async def deliver(topic: str, payload: bytes, qos: int) -> None:
            received.append((name, topic))

        identifier: str = await indexed_broker.broker_subscribe("1", "r", name, deliver)
        return identifier

    async def drive() -> None:
        held = {name: await subscribe(name) for name in ("a/b", "a/+", "#", "a/c", "x/y")}
        again = await subscribe("a/b")
        await indexed_broker.broker_publish("1", "r", "a/b", b"")
        await indexed_broker.broker_publish("2", "r", "a/b", b"")  # another account
        assert sorted(received) == [("#", "a/b"), ("a/+", "a/b"), ("a/b", "a/b"), ("a/b", "a/b")]
        received.clear()
        for name in ("a/b", "#"):
            await indexed_broker.broker_unsubscribe(held[name])
        await indexed_broker.broker_unsubscribe("unknown")
        await indexed_broker.broker_publish("1", "r", "a/b", b"")
        assert sorted(received) == [("a/+", "a/b"), ("a/b", "a/b")]
        await indexed_broker.broker_unsubscribe(again)
        await indexed_broker.broker_unsubscribe(held["a/+"])
        assert sorted(
            iot._unscope_topic("1", "r", name) for name in indexed_broker._subscriptions
        ) == [
            "a/c",
            "x/y",
        ]

    asyncio.run(drive())


def test_a_message_is_compared_with_few_of_many_subscriptions(
    indexed_broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []

    async def deliver(topic: str, payload: bytes, qos: int) -> None:
        pass

    def matches(name: str, topic: str) -> bool:
        compared.append(name)
        return name == topic

    async def drive() -> None:
        for number in range(300):
            await indexed_broker.broker_subscribe("1", "r", f"fl/f/{number}/command", deliver)
        await indexed_broker.broker_subscribe("1", "r", "fl/+/7/command", deliver)
        monkeypatch.setattr(iot, "_subscription_matches", matches)
        await indexed_broker.broker_publish("1", "r", "fl/f/7/command", b"")

    asyncio.run(drive())
    assert sorted(compared) == ["fl/+/7/command", "fl/f/7/command"]


def test_an_interface_endpoint_has_a_name() -> None:
    attributes = vpc_endpoints._with_names(lambda _: {"Id": "vpce-1", "DnsEntries": []})
    found = attributes(
        {"VpcEndpointId": "vpce-1", "ServiceName": "com.amazonaws.eu-central-1.iot.data"}
    )
    zone, name = found["DnsEntries"][0].split(":")
    assert (zone, name) == (
        vpc_endpoints.ZONE,
        "vpce-1.data.iot.eu-central-1.vpce.amazonaws.com",
    )


def test_a_condition_is_parsed_once_and_still_judges_each_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsed: list[str] = []
    original = dynamodb._tokenize

    def counted(expression: str) -> list[Any]:
        parsed.append(expression)
        return original(expression)

    monkeypatch.setattr(dynamodb, "_tokenize", counted)
    monkeypatch.setattr(dynamodb, "_condition_syntax_error", dynamodb._condition_syntax_error)
    expressions.parse_once()

    def holds(key: str, wanted: str, condition: str = "reply_key = :key") -> bool:
        values = {":key": {"S": wanted}}
        return dynamodb._evaluate_condition(condition, {"reply_key": {"S": key}}, values, {})

    assert [holds(key, "b") for key in ("a", "b", "c", "b")] == [False, True, False, True]
    assert holds("a", "a")
    assert parsed == ["reply_key = :key"]
    for _ in range(2):  # an error is not taken for an answer
        with pytest.raises(ValueError, match="Invalid ConditionExpression"):
            holds("a", "a", "reply_key = = :key")
