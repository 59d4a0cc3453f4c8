"""Calls side by side, by threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from fl_runtime.run.concurrency import Threads


def test_answers_come_as_they_are_ready() -> None:
    second = threading.Event()

    def call(item: int) -> int:
        if item == 1:
            assert second.wait(10), "the second call runs beside the first"
        else:
            second.set()
        return item * 10

    assert sorted(Threads().each(call, [1, 2], 2)) == [10, 20]


def test_no_more_answers_wait_than_calls_are_made_at_once() -> None:
    begun: list[int] = []
    answers = Threads().each(begun.append, range(100), 4)
    for taken in range(1, 90):
        next(answers)
        assert len(begun) < taken + 8
    assert len(list(answers)) == 11
    assert sorted(begun) == list(range(100))


def test_streams_are_consumed_side_by_side() -> None:
    met = threading.Barrier(2, timeout=10)

    def stream(name: str) -> Iterator[str]:
        yield f"{name}1"
        met.wait()
        yield f"{name}2"

    assert sorted(Threads().merged([stream("a"), stream("b")])) == ["a1", "a2", "b1", "b2"]


def test_streams_wait_for_their_reader_and_end_when_it_has_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fl_runtime.run.concurrency.LOOK_SECONDS", 0.01)
    made: list[int] = []
    ended = [threading.Event(), threading.Event()]

    def stream(name: int) -> Iterator[int]:
        for item in range(50):
            made.append(item)
            yield item
        ended[name].set()

    merged = Threads().merged([stream(0), stream(1)])
    for taken in range(1, 20):
        next(merged)
        assert len(made) <= taken + 4
    merged.close()  # type: ignore[attr-defined]
    assert all(end.wait(10) for end in ended)


def test_an_exception_is_raised_where_it_is_waited_for() -> None:
    def broken() -> Iterator[int]:
        raise ConnectionError("gone")
        yield 1

    for streams in ([broken()], [broken(), iter([1])]):
        with pytest.raises(ConnectionError, match="gone"):
            list(Threads().merged(streams))


def test_the_background_makes_one_call_after_the_other() -> None:
    made: list[int] = []
    with Threads().background("calls") as executor:
        for number in range(20):
            executor.submit(made.append, number)
    assert made == list(range(20))
