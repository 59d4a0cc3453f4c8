"""Runs as the command line and the notebook see them."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
from fakes.runs import record, row
from msgspec import structs

from fl_runtime.server.telemetry.failures import FailureCounter, FailureRow
from pipelines.cli.commands.runs.history import run_text
from pipelines.desk.runs import RunArchive, RunResults, check_run_id, summary_of
from pipelines.errors import UsageError


def mlflow_run(
    tags: dict[str, str] | None = None,
    metrics: dict[str, float] | None = None,
    end: int | None = 61_000,
) -> Any:
    given = {"mledgeops.run_id": "run-1", "mledgeops.app": "digits", "mledgeops.devices": "3"}
    return types.SimpleNamespace(
        info=types.SimpleNamespace(run_id="m1", start_time=1_000, end_time=end),
        data=types.SimpleNamespace(
            tags={**given, **(tags or {})}, params={"num_rounds": "2"}, metrics=metrics or {}
        ),
    )


class Page(list):
    """A page of search results."""

    token: str | None = None


class Mlflow:
    """An MLflow client with runs in pages of one."""

    def __init__(self, *runs: Any) -> None:
        self.runs = runs

    def search_experiments(self) -> list:
        return [types.SimpleNamespace(experiment_id="1")]

    def search_runs(
        self, experiments: list, query: str, order_by: list, page_token: str | None
    ) -> Page:
        assert experiments == ["1"]
        assert order_by
        index = int(page_token or 0)
        matching = [
            run
            for run in self.runs
            if "` = '" not in query or f"'{run.data.tags['mledgeops.run_id']}'" in query
        ]
        page = Page(matching[index : index + 1])
        page.token = str(index + 1) if index + 1 < len(matching) else None
        return page

    def get_metric_history(self, run_id: str, key: str) -> list:
        assert run_id == "m1"
        return [types.SimpleNamespace(step=step, value=step / 2) for step in (2, 1) if key]


def test_a_summary_has_numbers_duration_and_the_metric_as_it_is() -> None:
    summary = summary_of(
        mlflow_run({"mledgeops.metric": "rmse", "mledgeops.value": "0.25"}, {"evaluate.rmse": 0.5})
    )
    assert (summary.devices, summary.rounds, summary.seconds) == (3, 2, 60.0)
    assert (summary.metric, summary.value) == ("rmse", 0.25)
    assert (summary.status, summary.reason) == ("Running", "")


def test_a_run_under_way_shows_what_its_last_round_measured() -> None:
    summary = summary_of(mlflow_run(metrics={"evaluate.loss": 2.0, "evaluate.accuracy": 0.5}))
    assert (summary.metric, summary.value) == ("accuracy", 0.5)
    assert (summary_of(mlflow_run()).metric, summary_of(mlflow_run()).value) == ("", None)
    assert summary_of(mlflow_run(end=None)).seconds > 1e6


def test_a_run_whose_model_was_not_better_is_not_called_failed() -> None:
    summary = summary_of(
        mlflow_run({"mledgeops.status": "NotBetter", "mledgeops.reason": "It is 9; the bar is 8."})
    )
    assert (summary.status, summary.reason) == ("NotBetter", "It is 9; the bar is 8.")


def test_all_pages_of_runs_are_read() -> None:
    runs = [mlflow_run({"mledgeops.run_id": f"run-{number}"}) for number in range(3)]
    found = RunArchive(Mlflow(*runs)).runs()
    assert [summary.run_id for summary in found] == ["run-0", "run-1", "run-2"]


def test_one_run_comes_with_its_rounds_in_order() -> None:
    archive = RunArchive(Mlflow(mlflow_run(metrics={"evaluate.loss": 1.0})))
    summary, rounds = archive.get("run-1")
    assert summary.run_id == "run-1"
    assert rounds == [
        {"round": 1, "evaluate.loss": 0.5},
        {"round": 2, "evaluate.loss": 1.0},
    ]
    with pytest.raises(UsageError, match="There is no run 'run-9'"):
        archive.get("run-9")


@pytest.mark.parametrize("text", ["", "../etc", "run 1", "run'1", "*"])
def test_what_cannot_be_a_run_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a run's id"):
        check_run_id(text)


def test_a_run_shows_the_tables_and_the_files_of_its_app_and_what_failed_on_devices() -> None:
    def artifact(path: str, size: int | None) -> Any:
        return types.SimpleNamespace(path=path, is_dir=size is None, file_size=size)

    kept = {
        "tables": [artifact("tables/ages.json", 60)],
        "files": [artifact("files/plots", None)],
        "files/plots": [artifact("files/plots/curve.png", 7)],
        None: [artifact("failures.json", 90), artifact("tables", None)],
    }
    counter = FailureCounter()
    failed = structs.replace(row("d1", "error"), code="app-error", reason="ValueError (a.py:3)")
    assert counter.add(record(1, failed, structs.replace(failed, device="d2"), row("d3")))
    assert counter.add(record(2, failed))
    assert not counter.add(record(3, row("d1")))

    class Store(Mlflow):
        def list_artifacts(self, run_id: str, path: str) -> list:
            return kept.get(path, [])

        def download_artifacts(self, run_id: str, path: str, folder: str) -> str:
            file = Path(folder) / Path(path).name
            ages = b'{"columns": ["age", "n"], "data": [[40, 2], [50, 1]]}'
            file.write_bytes(counter.document() if path == "failures.json" else ages)
            return str(file)

    results = RunArchive(Store()).results("m1")
    assert results == RunResults(
        tables={"ages": {"age": [40, 50], "n": [2, 1]}},
        files={"plots/curve.png": 7},
        failures=[
            FailureRow(
                kind="train",
                code="app-error",
                reason="ValueError (a.py:3)",
                count=3,
                first_round=1,
                last_round=2,
                device="d1",
            )
        ],
    )
    shown = run_text(summary_of(mlflow_run()), [], results)
    assert "train   app-error      3  1-2     d1      ValueError (a.py:3)" in shown
