"""``mledgeops fleet`` shows every device, whatever one of them writes into its shadow."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.desk.fleet_rows import reported_model


def shadow(model: Any, stamps: Any = None) -> bytes:
    return json.dumps(
        {"state": {"reported": {"model": model}}, "metadata": {"reported": {"model": stamps}}}
    ).encode()


def test_an_offline_devices_model_is_that_of_its_shadow() -> None:
    known = shadow({"version": "wind/3"}, {"version": {"timestamp": 1.7e9}})
    assert reported_model(known) == ("wind/3", "2023-11-14T22:13:20+00:00")
    assert reported_model(shadow({"version": "wind/3"})) == ("wind/3", "")


@pytest.mark.parametrize(
    "payload",
    [
        shadow("text"),
        shadow([1]),
        shadow({"version": {"deep": 1}}, {"version": {"deep": {"timestamp": 1}}}),
        shadow({"version": 7}, {"version": [{"timestamp": 7}]}),
        b"[]",
        b'{"state": []}',
        b"{}",
        b"\xff",
        b'{"state": ' + b"[" * 9999,
    ],
)
def test_a_shadow_with_something_else_in_it_shows_no_model(payload: bytes) -> None:
    assert reported_model(payload) == ("", "")


def test_a_moment_that_no_clock_shows_is_left_out() -> None:
    for stamp in (1e300, -1, "x", {"a": 1}, None):
        assert reported_model(shadow({"version": "x/1"}, {"version": {"timestamp": stamp}})) == (
            "x/1",
            "",
        )
    assert reported_model(shadow({"version": "\u202e"}))[0] == "\N{REPLACEMENT CHARACTER}"
