"""Our patches of the emulator, each around a stand-in of the function that it wraps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.local.emulators.calls import CallLog
from pipelines.local.emulators.ministack import (
    iam,
    provisioning,
    step_functions,
    thing_attributes,
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
