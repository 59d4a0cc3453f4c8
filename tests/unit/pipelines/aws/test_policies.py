"""What roles and devices may do, and that tasks can reach what they may call."""

from __future__ import annotations

import json

import pytest

from pipelines.aws.policies import devices, functions, services, tasks
from pipelines.aws.policies.devices import claim_policy, device_policy
from pipelines.aws.policies.roles import DATA_ROLES, FUNCTIONS, SAGEMAKER_ROLES, statements
from pipelines.aws.policies.statement import allow, deliver_logs, document
from pipelines.deployment import Deployment

D = Deployment(account="000000000000", region="us-east-1")


def test_a_device_may_use_its_own_topics_only() -> None:
    text = json.dumps(device_policy(D))
    assert text.count("${iot:Connection.Thing.ThingName}") >= 8
    assert "topic/fl/*/*" not in text
    claim = json.dumps(claim_policy(D))
    assert "fl/" not in claim
    assert "shadow" not in claim


REACHED = {
    "dynamodb": "",
    "s3": "",
    "iot": "iot.data",
    "states": "states",
    "secretsmanager": "secretsmanager",
    "kms": "kms",
    "ecr": "ecr.api",
    "logs": "logs",
    "sagemaker-mlflow": "sagemaker.experiments",
}

"""The endpoint by which a task reaches a service; empty: a gateway."""


def test_tasks_reach_every_service_that_they_may_call() -> None:
    from pipelines.aws.stacks.network import ENDPOINTS

    called = {
        action.split(":")[0]
        for role in ("server", "proxy", "execution")
        for item in statements(role, D)
        for action in item["Action"]
    }
    assert called <= set(REACHED), "tasks have no way to the internet: give it an endpoint"
    assert {REACHED[service] for service in called} - {""} <= set(ENDPOINTS.values())


ROLES = (*DATA_ROLES, *SAGEMAKER_ROLES)
ANY_RESOURCE = {
    "ecr:GetAuthorizationToken",
    "iot:RegisterThing",
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "states:SendTaskSuccess",
    "states:SendTaskFailure",
    "states:SendTaskHeartbeat",
}
"""Actions that know no resource, besides a state machine's log deliveries."""


def test_every_role_belongs_to_one_stack_and_one_group_of_principals() -> None:
    assert len(ROLES) == len(set(ROLES))
    groups = [set(g.STATEMENTS) for g in (functions, tasks, devices, services)]
    assert sorted(role for group in groups for role in group) == sorted(ROLES)
    assert set(functions.STATEMENTS) == set(FUNCTIONS)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_no_more_than_its_statements_name(role: str) -> None:
    for item in statements(role, D):
        assert item["Effect"] == "Allow"
        assert not any("*" in action for action in item["Action"])
        if item["Resource"] == ["*"]:
            assert set(item["Action"]) <= ANY_RESOURCE or item == deliver_logs()


def test_every_function_writes_its_own_logs() -> None:
    for name in FUNCTIONS:
        group = f":log-group:/aws/lambda/mledgeops-{name}:*"
        assert any(item["Resource"][0].endswith(group) for item in statements(name, D)), name


def test_a_statement_has_a_condition_only_if_it_is_given_one() -> None:
    assert allow(["a:B"], ["r"]) == {"Effect": "Allow", "Action": ["a:B"], "Resource": ["r"]}
    assert allow(["a:B"], ["r"], Bool={"k": "v"})["Condition"] == {"Bool": {"k": "v"}}
    assert document([])["Version"] == "2012-10-17"
