"""A deployment with enrolled devices can be destroyed, and the next one takes its devices again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.aws.rehearsal.patterns import violations
from pipelines.deployment import Deployment
from pipelines.devices.attachments import attach_again, detach_all

D = Deployment(account="123456789012", region="eu-central-1", prefix="plant")
CERTIFICATES = [f"arn:aws:iot:eu-central-1:123456789012:cert/{name * 64}" for name in "abc"]


class _Missing(Exception):
    pass


class Iot:
    """Policies and certificates; a policy that is attached cannot be deleted."""

    exceptions = SimpleNamespace(ResourceNotFoundException=_Missing)

    def __init__(self, things: dict[str, list[str]], policies: dict[str, set[str]]) -> None:
        self.things, self.policies = things, policies

    def get_paginator(self, name: str) -> Any:
        return SimpleNamespace(paginate=getattr(self, name))

    def list_targets_for_policy(self, policyName: str) -> list[dict]:
        if policyName not in self.policies:
            raise _Missing
        return [{"targets": [target]} for target in sorted(self.policies[policyName])]

    def list_things(self, thingTypeName: str) -> list[dict]:
        assert thingTypeName == "plant-device"
        return [{"things": [{"thingName": name}]} for name in self.things]

    def list_thing_principals(self, thingName: str) -> dict:
        return {"principals": self.things[thingName]}

    def list_attached_policies(self, target: str) -> dict:
        names = [name for name, targets in self.policies.items() if target in targets]
        return {"policies": [{"policyName": name} for name in names]}

    def attach_policy(self, **given: str) -> None:
        assert violations("iot", "AttachPolicy", given) == []
        self.policies[given["policyName"]].add(given["target"])

    def detach_policy(self, **given: str) -> None:
        assert violations("iot", "DetachPolicy", given) == []
        self.policies[given["policyName"]].discard(given["target"])

    def delete_policy(self, policyName: str) -> None:
        assert not self.policies[policyName], "DeleteConflictException"
        del self.policies[policyName]


@pytest.fixture
def iot() -> Iot:
    one, two, claim = CERTIFICATES
    return Iot(
        {"press-1": [one], "core-1": [two], "press-2": []},
        {"plant-device": {one}, "plant-claim": {claim}, "plant-core-core-1": {two}},
    )


def test_destroying_detaches_the_policies_and_the_next_deployment_attaches_them(iot: Iot) -> None:
    assert detach_all(iot, D) == 2
    for name in (D.device_policy, D.claim_policy):
        iot.delete_policy(policyName=name)
    assert detach_all(iot, D) == 0
    iot.policies[D.device_policy] = set()
    assert attach_again(iot, D) == 1
    assert iot.policies == {
        D.device_policy: {CERTIFICATES[0]},
        "plant-core-core-1": {CERTIFICATES[1]},
    }
    assert attach_again(iot, D) == 0


def test_with_its_devices_a_deployment_could_not_be_destroyed(iot: Iot) -> None:
    with pytest.raises(AssertionError, match="DeleteConflict"):
        iot.delete_policy(policyName=D.device_policy)
