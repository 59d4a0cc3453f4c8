"""A run's log lines: read from files or CloudWatch, ordered by time, filtered by level."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.deployment import Deployment
from pipelines.desk.run_logs import cloud_lines, in_order, local_lines, parse_line
from pipelines.errors import UsageError


def raw(time: float, event: str, level: str = "INFO", **fields: Any) -> str:
    return json.dumps({"time": time, "level": level, "logger": "x", "event": event, **fields})


def test_a_line_of_json_becomes_time_level_and_message() -> None:
    line = parse_line("server", raw(5.0, "round", number=1, app="digits"))
    assert (line.time, line.level, line.message) == (5.0, "INFO", "round number=1 app=digits")
    trace = parse_line("server", raw(5.0, "crashed", "ERROR", exception="Traceback\n  boom"))
    assert trace.message == "crashed\nTraceback\n  boom"


@pytest.mark.parametrize("text", ["plain", "[1]", '{"time": "noon"}', "", "{"])
def test_any_other_text_stays_as_it_is(text: str) -> None:
    line = parse_line("server", text)
    assert (line.time, line.level, line.message, line.raw) == (None, "", text, text)


def test_levels_filter_but_lines_without_one_stay() -> None:
    warning = parse_line("server", raw(1.0, "late", "WARNING"))
    assert warning.is_at_least("INFO")
    assert warning.is_at_least("WARNING")
    assert not warning.is_at_least("ERROR")
    assert parse_line("server", "a traceback").is_at_least("CRITICAL")


def test_tasks_are_merged_by_time_and_a_traceback_stays_behind_its_line() -> None:
    lines = [
        parse_line("server", raw(1.0, "a")),
        parse_line("server", "  traceback of a"),
        parse_line("server", raw(3.0, "c")),
        parse_line("proxy", raw(2.0, "b")),
    ]
    messages = [line.message for line in in_order(iter(lines))]
    assert messages == ["a", "  traceback of a", "b", "c"]


def test_local_lines_name_their_task(tmp_path: Path) -> None:
    (tmp_path / "run-1-server.log").write_text(raw(1.0, "a") + "\nrest\n")
    (tmp_path / "run-1-proxy-c0000.log").write_text(raw(2.0, "b"))
    (tmp_path / "run-12-server.log").write_text(raw(2.0, "of another run"))
    found = list(local_lines(tmp_path, "run-1"))
    assert [(line.task, line.message) for line in found] == [
        ("proxy-c0000", "b"),
        ("server", "a"),
        ("server", "rest"),
    ]
    with pytest.raises(UsageError, match="no logs of run-2"):
        list(local_lines(tmp_path, "run-2"))


class Pages:
    def __init__(self, *pages: dict) -> None:
        self.pages = pages
        self.asked: list[dict] = []

    def get_paginator(self, _: str) -> Pages:
        return self

    def paginate(self, **arguments: Any) -> Any:
        self.asked.append(arguments)
        return iter(self.pages)

    class exceptions:  # as boto3 names it
        class ResourceNotFoundException(Exception):
            pass


def submitted(family: str, task: str) -> dict:
    output = {
        "Tasks": [{"TaskArn": f"arn:x:task/c/{task}", "TaskDefinitionArn": f"arn:x/{family}:3"}]
    }
    return {"taskSubmittedEventDetails": {"output": json.dumps(output)}}


def test_lines_on_aws_come_from_the_streams_of_the_executions_tasks() -> None:
    deployment = Deployment(account="1", region="r")
    steps = Pages(
        {"events": [{}, submitted("mledgeops-server", "abc")]},
        {"events": [submitted("mledgeops-proxy", "0123456789"), submitted("another", "zzz")]},
    )
    logs = Pages({"events": [{"message": raw(1.0, "a")}]})
    found = list(cloud_lines(steps, logs, deployment, "arn:execution"))
    assert [line.task for line in found] == ["server", "proxy-01234567"]
    assert logs.asked == [
        {"logGroupName": "/mledgeops/server", "logStreamNames": ["server/server/abc"]},
        {"logGroupName": "/mledgeops/proxy", "logStreamNames": ["proxy/proxy/0123456789"]},
    ]


class NoStream(Pages):
    def paginate(self, **_: Any) -> Any:
        raise self.exceptions.ResourceNotFoundException


def test_a_task_that_wrote_nothing_has_no_lines() -> None:
    deployment = Deployment(account="1", region="r")
    steps = Pages({"events": [submitted("mledgeops-server", "abc")]})
    assert list(cloud_lines(steps, NoStream(), deployment, "arn")) == []
