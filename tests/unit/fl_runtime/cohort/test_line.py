"""What the server lets a cohort's proxies say, whoever they are by now."""

from __future__ import annotations

import pytest
from fakes.phases import PHASE, device_result, phase_request

from fl_runtime.cohort.line import STRAYS, STREAMS, Line
from fl_runtime.cohort.rpc import FRAME_BYTES, Goodbye, StreamRefused, frames, messages
from fl_runtime.run.messages import PART_BYTES, Folded, FoldedPart, PhaseDone

ASKED = phase_request("d0", "d1")
ANSWER = device_result("d0", node_id=0)


def heard(line: Line) -> list:
    """What has arrived."""
    return list(line.events(1.0, iter([0.0, 0.999, 0.999, 0.999, 2.0]).__next__))


def test_each_answer_counts_once_and_what_an_older_stream_says_never() -> None:
    line = Line()
    first, second = line.connect(), line.connect()
    assert first is not None
    assert second is not None
    line.begin(ASKED)
    line.accept(first.session, ANSWER)
    for _ in range(2):
        line.accept(second.session, ANSWER)
        line.accept(second.session, Folded(PHASE, b"", 1))
    line.accept(second.session, Folded("another", b"", 1))
    assert heard(line) == [ANSWER, Folded(PHASE, b"", 1)]


def test_a_replaced_proxy_is_told_to_end_and_its_successor_gets_the_request() -> None:
    line = Line()
    first = line.connect()
    line.begin(ASKED)
    second = line.connect()
    assert list(take(first, 2)) == [ASKED, Goodbye()]
    assert list(take(second, 1)) == [ASKED]


def take(stream, count: int):
    outgoing = stream.outgoing()
    return (next(outgoing) for _ in range(count))


def test_a_cohort_has_no_more_streams_than_a_proxy_and_its_predecessor() -> None:
    line = Line()
    streams = [line.connect() for _ in range(STREAMS)]
    assert line.connect() is None
    line.disconnect(streams[0])
    assert line.connect() is not None


def test_who_answers_nothing_too_often_is_refused() -> None:
    line = Line()
    stream = line.connect()
    for _ in range(STRAYS):
        line.accept(stream.session, PhaseDone("another"))
    with pytest.raises(StreamRefused, match="answered nothing"):
        line.accept(stream.session, PhaseDone("another"))


def test_parts_of_a_mean_count_in_their_order_up_to_the_length_of_an_update() -> None:
    line = Line()
    first = line.connect()
    line.begin(phase_request("d0", size_limit=2 * PART_BYTES))
    half = bytes(PART_BYTES)
    good = [FoldedPart(PHASE, 0, half), FoldedPart(PHASE, len(half), half)]
    strays = [
        FoldedPart(PHASE, 0, half),
        FoldedPart("another", len(half) * 2, half),
        FoldedPart(PHASE, len(half) * 2, half),
    ]
    small = [FoldedPart(PHASE, 0, b""), FoldedPart(PHASE, 0, b"x")]
    for part in (*small, *good, *strays):
        line.accept(first.session, part)
    second = line.connect()
    line.accept(first.session, good[0])
    line.accept(second.session, good[0])
    assert heard(line) == [*good, good[0]], "a successor begins anew"


def test_frames_make_the_message_again_and_are_read_no_further_than_the_limit() -> None:
    long = Folded(PHASE, bytes(3 * FRAME_BYTES), 1)
    made = [*frames(long), *frames(PhaseDone(PHASE))]
    assert len(made) == 5
    assert next(len(item) for item in messages(made)) > 3 * FRAME_BYTES
    read = iter(made)
    with pytest.raises(StreamRefused, match="more than 9 bytes"):
        next(messages(read, 9))
    assert len(list(read)) == 4, "only the first frame was read"


def test_many_small_frames_are_no_message() -> None:
    with pytest.raises(StreamRefused, match="frame"):
        next(messages([b"\x01", b"\x01", b"\x00"]))
