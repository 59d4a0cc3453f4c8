"""A federated run has one MLflow run, whoever opens it, and it ends as the run does."""

from __future__ import annotations

import pytest
from fakes.mlflow_client import MemoryMlflow

from fl_runtime.run.mlflow_runs import MLFLOW_STATUS, end_run, find_run, log_params, open_run
from fl_runtime.run.spec import RunSpec
from fl_runtime.run.state import TERMINAL_STATES

SPEC = RunSpec(
    run="run-1",
    fleet="f",
    app="a" * 64,
    app_name="digits",
    num_rounds=2,
    min_devices=1,
    strategy_params={"eta": 0.5},
    run_config={"lr": 0.1},
)


def test_a_run_is_opened_once_with_its_tags_and_parameters() -> None:
    client = MemoryMlflow()
    run_id = open_run(client, SPEC, {"mledgeops.devices": "3"}, "s3://bucket/artifacts")
    assert open_run(client, SPEC, {}) == run_id
    run = client.runs[run_id]
    assert run.tags["mledgeops.run_id"] == "run-1"
    assert run.tags["mledgeops.devices"] == "3"
    assert (run.params["app.lr"], run.params["strategy.eta"]) == ("0.1", "0.5")
    assert "strategy" not in run.params, "the server logs it once it is known"
    # What a run has keeps its value: a run of 0.4 that is resumed has another strategy's text.
    log_params(client, run_id, {"strategy": "FedAdam", "strategy.eta": 0.7, "app.a@b": "x" * 9000})
    assert (run.params["strategy"], run.params["strategy.eta"]) == ("FedAdam", "0.5")
    assert len(run.params["app.a_b"]) == 6000
    assert client.experiments["mledgeops"][1] == "s3://bucket/artifacts"


def test_a_run_that_was_never_opened_is_not_found() -> None:
    client = MemoryMlflow()
    assert find_run(client, "run-1", "mledgeops") is None
    open_run(client, SPEC, {})
    assert find_run(client, "run-2", "mledgeops") is None


@pytest.mark.parametrize("state", TERMINAL_STATES)
def test_each_terminal_state_has_its_mlflow_status(state) -> None:
    client = MemoryMlflow()
    run_id = open_run(client, SPEC, {})
    end_run(client, run_id, state, "because", "arn:execution")
    run = client.runs[run_id]
    assert run.status == MLFLOW_STATUS[state]
    assert run.tags["mledgeops.status"] == state
    assert run.tags["mledgeops.reason"] == "because"
    assert run.tags["mledgeops.execution_arn"] == "arn:execution"
