"""Runs that ended while MLflow was away are told to it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from registry.reconcile.runs import LOST, OpenRun, end_open_runs, find_open_runs


class Runs:
    """MLflow's runs, all RUNNING, and how they ended."""

    def __init__(self, *names: str) -> None:
        self.names, self.tags, self.ended = names, {}, {}

    def search_experiments(self) -> list[Any]:
        return [SimpleNamespace(experiment_id="0")] if self.names else []

    def search_runs(self, experiments: list[str], query: str) -> list[Any]:
        assert "RUNNING" in query
        return [
            SimpleNamespace(
                info=SimpleNamespace(run_id=f"m-{name}"),
                data=SimpleNamespace(
                    tags={
                        "mledgeops.run_id": name,
                        "mledgeops.pipeline_execution_arn": f"arn:{name}",
                    }
                ),
            )
            for name in self.names
        ]

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self.tags[run_id, key] = value

    def set_terminated(self, run_id: str, status: str) -> None:
        self.ended[run_id] = status


class Table:
    """The runs table."""

    def __init__(self, **states: str) -> None:
        self.states = states

    def update(self, run: str, **changes: str) -> bool:
        self.changed = {**getattr(self, "changed", {}), run: changes}
        return True

    def get(self, run: str) -> Any:
        state = self.states.get(run)
        return SimpleNamespace(state=state, reason="why") if state else None


def test_only_runs_that_have_ended_are_told() -> None:
    mlflow: Any = Runs("done", "failed", "going", "unknown")
    table: Any = Table(done="Succeeded", failed="Failed", going="Running")
    found = find_open_runs(mlflow, table, lambda arn: False)
    assert found == [
        OpenRun("done", "m-done", "Succeeded", "why"),
        OpenRun("failed", "m-failed", "Failed", "why"),
    ]
    assert [(item.repair.act, item.repair.value) for item in found] == [
        ("set-tag", "Succeeded"),
        ("set-tag", "Failed"),
    ]
    end_open_runs(mlflow, table, found)
    assert mlflow.ended == {"m-done": "FINISHED", "m-failed": "FAILED"}
    assert mlflow.tags["m-failed", "mledgeops.reason"] == "why"


def test_a_store_without_experiments_has_no_runs() -> None:
    nothing: Any = Runs()
    assert find_open_runs(nothing, Table(), lambda arn: True) == []  # type: ignore[arg-type]


def test_a_run_whose_pipeline_ended_with_its_cloud_has_failed_wherever_it_is_kept() -> None:
    mlflow: Any = Runs("dead", "forgotten", "going")
    table: Any = Table(dead="Running", going="Running")  # the emulator was killed: a row is lost
    found = find_open_runs(mlflow, table, lambda arn: arn != "arn:going")
    assert found == [
        OpenRun("dead", "m-dead", "Failed", LOST),
        OpenRun("forgotten", "m-forgotten", "Failed", LOST),
    ]
    end_open_runs(mlflow, table, found)
    assert mlflow.ended == {"m-dead": "FAILED", "m-forgotten": "FAILED"}
    assert table.changed["dead"] == {"state": "Failed", "reason": LOST}
    assert found[0].repair.why == "its pipeline has ended"
