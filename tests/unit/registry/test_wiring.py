"""The registry, put together from clients."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fakes.registries import MemoryModels

from fl_runtime.run.errors import SettingMissing
from registry.wiring import Registry, make_clients, resources_from_environment

ENVIRONMENT = {
    "MLEDGEOPS_BUCKET": "b",
    "MLEDGEOPS_DEVICES_TABLE": "devices",
    "MLEDGEOPS_ROLLOUTS_TABLE": "rollouts",
    "MLEDGEOPS_ROLLOUT_MACHINE": "arn:aws:states:eu-west-1:123456789012:stateMachine:ours-rollout",
    "MLEDGEOPS_MODELS_KEY": "alias/ours-models",
    "MLEDGEOPS_RECORDS_KEY": "alias/ours-records",
    "MLEDGEOPS_JOB_URLS_ROLE": "arn:role",
}


def test_region_account_and_prefix_are_those_of_the_state_machine() -> None:
    found = resources_from_environment(ENVIRONMENT)
    assert (found.region, found.account, found.prefix) == ("eu-west-1", "123456789012", "ours")
    assert found.fresh_seconds == 90.0


@pytest.mark.parametrize("name", sorted(ENVIRONMENT))
def test_the_first_setting_that_is_missing_is_named(name: str) -> None:
    with pytest.raises(SettingMissing, match=name):
        resources_from_environment({key: v for key, v in ENVIRONMENT.items() if key != name})


def test_everything_is_made_of_the_clients_given_and_mlflow_only_when_it_is_needed() -> None:
    services: list[str] = []
    opened: list[MemoryModels] = []

    def client(service: str) -> Any:
        services.append(service)
        return SimpleNamespace(service=service)

    def mlflow() -> MemoryModels:
        opened.append(MemoryModels())
        return opened[-1]

    registry = Registry(make_clients(client, mlflow), resources_from_environment(ENVIRONMENT))
    assert registry.conductor is registry.conductor
    assert registry.stale_devices is registry.stale_devices
    assert opened == [], "importing MLflow takes seconds"
    assert registry.mlflow.versions() == []
    assert registry.mlflow_client is opened[0]
    assert len(opened) == 1
    assert sorted(services) == [
        "dynamodb",
        "iot",
        "kms",
        "lambda",
        "s3",
        "sagemaker",
        "stepfunctions",
        "sts",
    ]
    assert registry.record_signer().records is registry.records
