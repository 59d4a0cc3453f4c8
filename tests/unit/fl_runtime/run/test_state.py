"""The runs table, on an in-process DynamoDB: conditional writes decide every race."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from fl_runtime.run.state import TERMINAL_STATES, RunState, RunTable

STARTED = RunState(run="run-1", state="Starting", created_at=5.0)


@pytest.fixture(scope="module")
def dynamodb() -> Iterator[object]:
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield boto3.client("dynamodb")


@pytest.fixture
def table(dynamodb: object) -> Iterator[RunTable]:
    dynamodb.create_table(
        TableName="runs",
        KeySchema=[{"AttributeName": "run", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "run", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    made = RunTable(dynamodb, "runs")
    assert made.create(STARTED)
    yield made
    dynamodb.delete_table(TableName="runs")


def test_a_run_is_created_once_and_read_back(table: RunTable) -> None:
    assert table.get("run-1") == STARTED
    assert table.get("run-2") is None
    assert not table.create(RunState(run="run-1", state="Running"))
    assert table.get("run-1") == STARTED


def test_a_new_server_fences_off_the_old_one(table: RunTable) -> None:
    old, new = table.take_over("run-1"), table.take_over("run-1")
    assert (old, new) == (1, 2)
    assert not table.commit_round("run-1", old, 1, "a")
    assert table.commit_round("run-1", new, 1, "b")
    found = table.get("run-1")
    assert found is not None
    assert (found.finished_round, found.checkpoint, found.epoch) == (1, "b", 2)


def test_an_update_may_be_that_of_the_newest_server_only(table: RunTable) -> None:
    old, new = table.take_over("run-1"), table.take_over("run-1")
    assert not table.update("run-1", epoch=old, server="old:1")
    assert table.update("run-1", epoch=new, server="new:1")
    found = table.get("run-1")
    assert found is not None
    assert found.server == "new:1"


@pytest.mark.parametrize("state", TERMINAL_STATES)
def test_a_terminal_state_never_changes(table: RunTable, state: str) -> None:
    epoch = table.take_over("run-1")
    assert table.update("run-1", state=state, reason="because")
    assert not table.update("run-1", state="Running")
    assert not table.commit_round("run-1", epoch, 1, "a")
    found = table.get("run-1")
    assert found is not None
    assert (found.state, found.reason, found.finished_round) == (state, "because", 0)


def test_an_update_may_exclude_further_states(table: RunTable) -> None:
    assert table.update("run-1", state="Stopping")
    assert not table.update("run-1", unless=("Stopping",), state="Running")
    assert table.update("run-1", state="Stopped")


def test_a_run_that_was_never_created_is_not_updated(table: RunTable) -> None:
    assert not table.update("run-2", state="Running")
    assert table.get("run-2") is None
