"""A run that its cloud left under way is ended by whoever meets it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fl_runtime.run.state import RunState
from pipelines.desk import lost_runs
from pipelines.run.clients import RunClients
from pipelines.run.executions import Executions
from registry.reconcile import runs as open_runs
from registry.reconcile.runs import LOST


class SageMaker:
    """Knows one execution."""

    def __init__(self, status: str) -> None:
        self.status = status

    def describe_pipeline_execution(self, PipelineExecutionArn: str) -> dict[str, str]:
        if PipelineExecutionArn != "arn":
            raise ClientError({"Error": {"Code": "ValidationException"}}, "Describe")
        return {"PipelineExecutionStatus": self.status}


@pytest.mark.parametrize(
    ("status", "arn", "ended"),
    [
        ("Executing", "arn", False),
        ("Stopping", "arn", False),
        ("Failed", "arn", True),
        ("Executing", "unknown", True),
    ],
)
def test_an_execution_has_ended_or_is_not_known(status: str, arn: str, ended: bool) -> None:
    assert Executions(SageMaker(status)).ended(arn) is ended


def test_only_a_lost_run_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    changed: dict[str, dict[str, str]] = {}
    table: Any = SimpleNamespace(
        get=lambda run: RunState(run=run, state="Running"),
        update=lambda run, **changes: changed.update({run: changes}),
    )
    item = SimpleNamespace(
        info=SimpleNamespace(run_id="m"),
        data=SimpleNamespace(tags={open_runs.RUN_ID_TAG: "run-1", open_runs.PIPELINE_TAG: "arn"}),
    )
    mlflow = SimpleNamespace(
        search_experiments=lambda: [SimpleNamespace(experiment_id="0")],
        search_runs=lambda experiments, query: [item],
        set_tag=lambda *given: None,
        set_terminated=lambda *given: None,
    )
    monkeypatch.setattr(lost_runs, "mlflow_client", lambda: mlflow)

    def clients(status: str) -> RunClients:
        return RunClients(objects=None, runs=table, sagemaker=SageMaker(status))  # type: ignore[arg-type]

    assert not lost_runs.settle(clients("Executing"), "run-1")
    assert not lost_runs.settle(clients("Failed"), "run-2")
    assert changed == {}
    assert lost_runs.settle(clients("Failed"), "run-1")
    assert changed == {"run-1": {"state": "Failed", "reason": LOST}}
