"""The names of a deployment: derived once, all with its prefix, and none twice for one kind."""

from __future__ import annotations

import dataclasses

import pytest

from pipelines.deployment import Deployment

D = Deployment(account="123456789012", region="eu-central-1", prefix="plant")


def test_names_are_derived_from_account_region_and_prefix() -> None:
    assert D.bucket == "plant-123456789012-eu-central-1"
    assert D.runs_table == "plant-runs"
    assert D.queue_url == "https://sqs.eu-central-1.amazonaws.com/123456789012/plant-callbacks"
    assert D.state_machine == "arn:aws:states:eu-central-1:123456789012:stateMachine:plant-run"
    assert D.pipeline_role == D.role("pipeline")
    assert D.function_arn("link").endswith(":function:plant-link")
    assert D.stacks == ("plant-base", "plant-data", "plant-sagemaker")


def test_another_prefix_changes_every_name() -> None:
    other = dataclasses.replace(D, prefix="mill")
    derived = [f.name for f in dataclasses.fields(D) if not f.init]
    assert len(derived) > 20
    for name in derived:
        assert getattr(other, name) == getattr(D, name).replace("plant", "mill") != getattr(D, name)


def test_tables_and_queues_have_names_of_their_own() -> None:
    tables = [D.devices_table, D.replies_table, D.runs_table, D.rollouts_table]
    assert len({*tables, D.queue, D.dead_queue}) == 6


def test_a_deployment_is_a_value() -> None:
    assert Deployment(account="1", region="r") == Deployment(account="1", region="r")
    with pytest.raises(dataclasses.FrozenInstanceError):
        D.bucket = "x"  # type: ignore[misc]


def test_the_environment_names_what_tasks_and_functions_use() -> None:
    assert D.environment()["MLEDGEOPS_RUNS_TABLE"] == "plant-runs"
    assert all(value for value in D.environment().values())
