"""The log lines of a run: a line a round, a line a failed device, progress once a minute."""

from __future__ import annotations

import logging

import pytest
from fakes.runs import record, row, spec

from fl_runtime.run.cost import Topology
from fl_runtime.server.model.objective import Objective
from fl_runtime.server.telemetry.log_events import FAILURES_LOGGED, PROGRESS_SECONDS, RoundLog


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def log(now: list[float], caplog: pytest.LogCaptureFixture) -> RoundLog:
    caplog.set_level(logging.INFO)
    objective = Objective("accuracy")
    return RoundLog(spec(), Topology(proxies=0), objective, clock=lambda: now[0], now=lambda: 7.0)


def test_a_round_has_its_metrics_and_the_objective_as_value(log: RoundLog, caplog) -> None:
    log.finished(record(1, row("a"), row("b", "error"), accuracy=0.5))
    first, failure = (entry.fields for entry in caplog.records)
    assert (first["round"], first["value"], first["evaluate_accuracy"]) == (1, 0.5, 0.5)
    assert first["_aws"]["Timestamp"] == 7000
    names = {metric["Name"] for metric in first["_aws"]["CloudWatchMetrics"][0]["Metrics"]}
    assert names <= set(first), "an embedded metric is a field of the line"
    assert failure["device"] == "b"


def test_a_fleet_that_fails_as_a_whole_does_not_fill_the_log(log: RoundLog, caplog) -> None:
    log.finished(record(1, *(row(f"d{i}", "error") for i in range(500))))
    assert len(caplog.records) == 1 + FAILURES_LOGGED


def test_progress_is_logged_once_a_minute(log: RoundLog, now: list[float], caplog) -> None:
    log.progress()
    now[0] = PROGRESS_SECONDS
    log.progress()
    log.progress()
    (entry,) = caplog.records
    assert entry.fields == {"run": "run-1", "finished_round": 0, "round_age": PROGRESS_SECONDS}
