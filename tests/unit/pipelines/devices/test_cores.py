"""A Greengrass core gets a thing of its fleet, and a policy of its own."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from edge.protocol.errors import ProtocolError
from pipelines.aws.policies.devices import core_policy
from pipelines.deployment import Deployment
from pipelines.devices.cores import expect_core

D = Deployment(account="000000000000", region="us-east-1")


class _Exists(Exception):
    pass


class Iot:
    """Things, and policies with at most five versions."""

    exceptions = SimpleNamespace(ResourceAlreadyExistsException=_Exists)

    def __init__(self) -> None:
        self.things: dict[str, dict[str, str]] = {}
        self.groups: dict[str, set[str]] = {}
        self.policies: dict[str, list[str]] = {}

    def create_thing(self, thingName: str, thingTypeName: str, attributePayload: Any) -> None:
        if thingName in self.things:
            raise _Exists
        self.things[thingName] = dict(attributePayload["attributes"])

    def add_thing_to_thing_group(self, thingGroupName: str, thingName: str) -> None:
        assert thingName in self.things
        self.groups.setdefault(thingGroupName, set()).add(thingName)

    def update_thing(self, thingName: str, attributePayload: Any) -> None:
        assert attributePayload["merge"]
        self.things[thingName].update(attributePayload["attributes"])

    def create_policy(self, policyName: str, policyDocument: str) -> None:
        if policyName in self.policies:
            raise _Exists
        self.policies[policyName] = [policyDocument]

    def list_policy_versions(self, policyName: str) -> dict[str, Any]:
        last = len(self.policies[policyName]) - 1
        return {
            "policyVersions": [
                {"versionId": str(number), "isDefaultVersion": number == last}
                for number in range(last + 1)
            ]
        }

    def delete_policy_version(self, policyName: str, policyVersionId: str) -> None:
        del self.policies[policyName][int(policyVersionId)]

    def create_policy_version(
        self, policyName: str, policyDocument: str, setAsDefault: bool
    ) -> None:
        assert setAsDefault
        assert len(self.policies[policyName]) < 5
        self.policies[policyName].append(policyDocument)


def test_a_core_can_be_expected_again_and_moved_to_another_fleet() -> None:
    iot = Iot()
    for fleet in ("f", "f", "g", "f", "g", "f", "g"):
        name = expect_core(D, iot, fleet, "core-1", core_policy(D, fleet, "core-1"))
        assert iot.things == {"core-1": {"fleet": fleet}}
        assert name == "mledgeops-core-core-1"
        assert f"topic/fl/{fleet}/core-1/heartbeat" in json.dumps(iot.policies[name][-1])


def test_an_illegal_name_is_refused() -> None:
    for fleet, device in (("f", "*"), ("*", "d")):
        with pytest.raises(ProtocolError):
            expect_core(D, Iot(), fleet, device, {})
