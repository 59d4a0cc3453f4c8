"""Charts are well-formed SVG, whatever the numbers."""

from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from registry.evidence import charts

POINTS = st.lists(
    st.tuples(st.integers(0, 50), st.floats(allow_nan=True, allow_infinity=True)), max_size=20
)


@given(POINTS)
@settings(max_examples=50)
def test_charts_are_well_formed_whatever_the_numbers(points: list[tuple[int, float]]) -> None:
    values = [value for _, value in points]
    for text in (
        charts.lines([(float(x), y) for x, y in points]),
        charts.bars([(f"<{x}&", y) for x, y in points], limit=1.0),
        charts.histogram(values),
        charts.pairs([(str(x), y, None) for x, y in points]),
        charts.pairs([(str(x), y, float(x)) for x, y in points]),
        charts.columns([x for x, _ in points], [x for x, _ in points]),
    ):
        ElementTree.fromstring(text)  # our own
        assert "nan" not in text
        assert "inf" not in text


def test_a_bar_beyond_its_limit_stands_out() -> None:
    assert charts.bars([("a", 2.0), ("b", 0.5)], limit=1.0).count('class="over"') == 1


def test_a_histogram_counts_every_device_once() -> None:
    text = charts.histogram([0.0, 0.1, 0.9, 1.0], bins=2)
    assert "0 to 0.5" in text and "0.5 to 1" in text
    assert text.count(">2</text>") == 2


def test_long_names_are_shortened_with_the_whole_name_as_title() -> None:
    name = "a-very-long-name-of-some-group"
    text = charts.pairs([(name, 1.0, None)])
    assert f"<title>{name}</title>" in text
    assert f"{name[:21]}…" in text
