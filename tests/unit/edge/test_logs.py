"""One JSON object a line, with the fields that metric filters read."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from edge import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What a process logs; the root logger is as before afterwards."""
    root, said = logging.getLogger(), io.StringIO()
    handlers, level = list(root.handlers), root.level
    logs.set_up(stream=said)
    yield said
    root.handlers[:], root.level = handlers, level


def test_an_event_is_one_line_with_its_fields(stream: io.StringIO) -> None:
    logs.event(logging.getLogger("edge.test"), "round-done", run="run-1", seconds=1.5)
    line = json.loads(stream.getvalue())
    assert line.pop("time") > 0
    assert line == {
        "level": "INFO",
        "logger": "edge.test",
        "event": "round-done",
        "run": "run-1",
        "seconds": 1.5,
    }


def test_an_exception_and_a_value_that_is_no_json_stay_one_line(stream: io.StringIO) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("edge.test").exception("failed", extra={"fields": {"set": {1}}})
    (text,) = stream.getvalue().splitlines()
    assert "two\nlines" in json.loads(text)["exception"]
    assert json.loads(text)["set"] == "{1}"
