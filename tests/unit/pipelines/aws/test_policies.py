"""What roles and devices may do, and that tasks can reach what they may call."""

from __future__ import annotations

import json

from pipelines.aws.policies.devices import claim_policy, device_policy
from pipelines.aws.policies.roles import statements
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
