"""Output: tables, times, and that nothing a device named reaches the terminal raw."""

from __future__ import annotations

import json

import pytest

from pipelines.cli.output import answer, readable, table
from pipelines.desk.moments import duration, moment


def test_numbers_are_aligned_to_the_right_also_where_one_is_missing() -> None:
    text = table(["name", "value"], [["a", 1.5], ["long", None], ["b", 1234.5]])
    assert text.splitlines() == [
        "name  value",
        "----  -----",
        "a       1.5",
        "long",
        "b      1234",
    ]


def test_control_characters_are_replaced() -> None:
    assert readable("a\x1b[31mb\x07") == "a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}"
    assert readable("two\nlines\tkept") == "two\nlines\tkept"
    assert readable("Größe 大 1\u00a0000") == "Größe 大 1\u00a0000"


@pytest.mark.parametrize(
    "character", "\u202e\u2066\u200f\u061c\u200b\u2028\ufeff\ud800\x9b\U000e0041"
)
def test_no_character_turns_or_hides_text_on_a_terminal(character: str) -> None:
    assert readable(f"a{character}b") == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (65, "1 min 5 s"), (3_661, "1 h 1 min"), (90_000, "25 h 0 min")],
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_times_are_in_utc() -> None:
    assert moment(0) == "1970-01-01T00:00:00+00:00"


def test_an_answer_is_text_or_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    answer(False, {"a": 1}, "text")
    assert capsys.readouterr().out == "text\n"
    answer(True, {"a": 1}, "text")
    assert json.loads(capsys.readouterr().out) == {"a": 1}
