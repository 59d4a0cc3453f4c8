"""Metrics from the logs: patterns, what the server writes, the deployed filters on a real run, the
dashboard.
"""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.paths import ROOT

from edge import logs
from fl_runtime.run.cost import Topology, round_cost
from fl_runtime.run.records import DeviceRow, RoundBytes, RoundRecord, RoundSeconds
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.model.objective import Objective
from fl_runtime.server.telemetry.log_events import FAILURES_LOGGED, PROGRESS_SECONDS, RoundLog
from pipelines.aws import metrics
from pipelines.local.emulators.filter_patterns import PatternError, parse
from pipelines.local.emulators.metric_filters import FilterRule, embedded

SPEC = RunSpec(run="run-1", fleet="f", app="a" * 64, app_name="digits", num_rounds=2, min_devices=1)


def row(device: str, code: str = "") -> DeviceRow:
    return DeviceRow(
        round=1,
        phase="p",
        kind="train",
        device=device,
        status="error" if code else "ok",
        code=code,
        reason=code,
        digest="",
        seconds_fetch=0.0,
        seconds_work=0.0,
        seconds_upload=0.0,
        bytes_up=10,
        bytes_down=20,
        metrics={},
    )


def record(rows: list[DeviceRow], evaluate: dict[str, Any]) -> RoundRecord:
    failures = {"app-error": sum(r.status == "error" for r in rows)}
    return RoundRecord(
        round=1,
        train={},
        evaluate=evaluate,
        server={},
        participants=sum(r.status == "ok" for r in rows),
        failures=failures,
        seconds=RoundSeconds(2.0, 1.0, 0.5, 0.25),
        bytes=RoundBytes(100, 200),
        devices=rows,
    )


def lines_of(write: Any) -> list[dict[str, Any]]:
    """What a piece of the server logs, as the container's lines."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    root = logging.getLogger("fl_runtime.server.telemetry.log_events")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        write()
    finally:
        root.removeHandler(handler)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def points(lines: list[dict[str, Any]]) -> dict[tuple, float]:
    """What the catalogue's filters, and the embedded metrics, make of lines."""
    found: dict[tuple, float] = {}
    for item in metrics.FILTERS:
        described = {
            "filterPattern": item.pattern,
            "metricTransformations": [
                {
                    "metricName": item.metric,
                    "metricNamespace": "n",
                    "metricValue": item.value,
                    "unit": item.unit,
                    "dimensions": item.dimensions,
                }
            ],
        }
        for point in (p for line in lines for p in FilterRule(described).points(line)):
            found[(point.metric, *(value for _, value in point.dimensions))] = (
                found.get((point.metric, *(v for _, v in point.dimensions)), 0) + point.value
            )
    for point in (p for line in lines for p in embedded(line)):
        found[(point.metric, *(value for _, value in point.dimensions))] = point.value
    return found


def test_a_round_becomes_its_metrics() -> None:
    log = RoundLog(SPEC, Topology(proxies=2), Objective(), clock=lambda: 0.0)
    found = points(
        lines_of(
            lambda: log.finished(
                record([row("a"), row("b"), row("c", "app-error")], {"accuracy": 0.9, "loss": 0.3})
            )
        )
    )
    assert found == {
        ("Rounds", "digits"): 1,
        ("Participants", "digits"): 2,
        ("RoundSeconds", "digits"): 2.0,
        ("RoundOverheadSeconds", "digits"): 0.25,
        ("Loss", "digits"): 0.9,
        ("DeviceFailures", "app-error"): 1,
        ("FailedReplies",): 1,
        ("BytesUp", "digits"): 100,
        ("BytesDown", "digits"): 200,
        ("EstimatedCost", "digits"): pytest.approx(
            round_cost(Topology(proxies=2), 2.0, 3), abs=1e-8
        ),
    }


def test_a_broken_fleet_does_not_flood_the_log_and_no_judged_metric_is_no_loss() -> None:
    log = RoundLog(SPEC, Topology(proxies=0), Objective())
    written = lines_of(
        lambda: log.finished(record([row(f"d{i}", "app-error") for i in range(1000)], {}))
    )
    assert len(written) == 1 + FAILURES_LOGGED
    assert ("Loss", "digits") not in points(written)


def test_progress_is_told_once_a_minute_and_starts_anew_with_each_round() -> None:
    now = [0.0]
    log = RoundLog(SPEC, Topology(proxies=0), Objective(), clock=lambda: now[0])

    def write() -> None:
        for second in range(0, 300, 5):
            now[0] = float(second)
            log.progress()
            if second == 150:
                log.finished(record([row("a")], {}))

    ages = [line["round_age"] for line in lines_of(write) if line["event"] == "progress"]
    assert ages == [PROGRESS_SECONDS, 2 * PROGRESS_SECONDS, 30.0, 90.0]


def logged_events() -> set[str]:
    """The names of events in the packages' calls such as ``event(logger, "round", ...)``."""
    calls = (
        node
        for folder in ("edge", "fl_runtime", "registry", "pipelines")
        for file in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and len(node.args) >= 2
    )
    return {call.args[1].value for call in calls if isinstance(call.args[1], ast.Constant)}


def test_every_filter_is_fed_by_an_event_that_the_code_logs() -> None:
    events = logged_events()
    for item in metrics.FILTERS:
        for event in re.findall(r'\$\.event = "([^"]+)"', item.pattern):
            assert event in events, f"nothing logs {event!r}, which {item.metric} counts"


def test_alarms_and_graphs_are_of_metrics_that_exist() -> None:
    known = {item.metric for item in metrics.FILTERS} | set(metrics.EMBEDDED)
    assert {
        alarm.metric for alarm in metrics.ALARMS if alarm.namespace == metrics.NAMESPACE
    } <= known
    assert {metric for widget in metrics.WIDGETS for metric, _ in widget.metrics} <= known
    assert {
        alarm.metric
        for alarm in metrics.ALARMS
        if alarm.namespace == metrics.NAMESPACE and metrics.dimensions_of(alarm.metric)
    } == set(), "an alarm on a metric with dimensions would need one alarm a value"


@pytest.mark.parametrize(
    ("pattern", "line", "matches"),
    [
        ('{ $.event = "round" }', {"event": "round"}, True),
        ('{ $.event = "round" }', {"event": "rounds"}, False),
        ('{ $.event = "ro*" }', {"event": "rounds"}, True),
        ("{ $.a.b >= 2 }", {"a": {"b": 2}}, True),
        ("{ $.a.b >= 2 }", {"a": {"b": True}}, False),
        ("{ $.a = * }", {"b": 1}, False),
        ('{ $.a != "x" }', {"a": "y"}, True),
        ("{ $.ok IS TRUE }", {"ok": True}, True),
        ("{ $.ok IS TRUE }", {"ok": 1}, False),
        ("{ $.ok IS FALSE }", {"ok": False}, True),
        ("{ $.ok NOT EXISTS }", {}, True),
        ("{ ($.a = 1) && ($.b = 2 || $.c = 3) }", {"a": 1, "c": 3}, True),
        ("{ $.a = 1 && $.b = 2 || $.c = 3 }", {"c": 3}, True),
        ("{ $.a < -1.5 }", {"a": -2}, True),
    ],
)
def test_filter_patterns_match_as_cloudwatch_documents(
    pattern: str, line: dict, matches: bool
) -> None:
    assert parse(pattern)(line) is matches


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "round",
        "{ }",
        "{ $.a }",
        "{ $.a = }",
        "{ $.a = 1",
        '{ a = "1" }',
        "{ $.a IS MAYBE }",
        "{ $.a ~ 1 }",
        "{ $.a = 1 } x",
        "{ ($.a = 1 }",
    ],
)
def test_a_pattern_that_could_never_match_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError, match="filter pattern"):
        parse(pattern)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_no_log_line_breaks_a_filter(value: Any) -> None:
    line = {"event": value, "value": value, "app": value, "ok": value, "ruleName": value}
    for item in metrics.FILTERS:
        described = {
            "filterPattern": item.pattern,
            "metricTransformations": [
                {
                    "metricName": "m",
                    "metricNamespace": "n",
                    "metricValue": item.value,
                    "dimensions": item.dimensions,
                }
            ],
        }
        assert len(list(FilterRule(described).points(line))) <= 1
