"""Charts of the model card as SVG text.

Written by hand: matplotlib is larger than the Lambda function that draws them may be. Sizes are in
CSS pixels of the view box; the page's style sheet gives the colours by class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

Point = tuple[float, float]
WIDTH, LEFT, RIGHT = 460, 56, 12
"""Width of a chart, and its left and right margins."""
NAME_WIDTH = 150
ROW_HEIGHT = 22
NAME_CHARACTERS = 22
MARKS = 400
"""Most points of a curve that get a mark of their own."""


def lines(points: Sequence[Point], height: int = 170) -> str:
    """One curve by round. Values that are not finite are left out."""
    finite = [(x, y) for x, y in points if _fits(y)]
    if not finite:
        return _empty("not reported")
    top, bottom, right = 12, height - 26, WIDTH - RIGHT
    xs, (low, high) = [x for x, _ in finite], _bounds([y for _, y in finite])
    x_of = _scale(min(xs), max(xs), LEFT + 6, right - 6)
    y_of = _scale(low, high, bottom, top)
    ticks = [
        _line("grid", LEFT, right, y_of(y), y_of(y))
        + _text(LEFT - 6, y_of(y) + 4, f"{y:.4g}", "end")
        for y in _ticks(low, high)
    ]
    path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in finite)
    marks = [
        _circle("mark", x_of(x), y_of(y), 2.5, f"round {x:g}: {y:.5g}") for x, y in finite[-MARKS:]
    ]
    ends = [_text(x_of(x), height - 8, f"{x:g}", "middle") for x in sorted({min(xs), max(xs)})]
    label = _text((LEFT + WIDTH) / 2, height - 8, "round", "middle")
    curve = f'<polyline class="line" points="{path}"/>'
    return _svg(height, [*ticks, curve, *marks, *ends, label])


def pairs(rows: Sequence[tuple[str, float, float | None]]) -> str:
    """One row for each group: the candidate (filled) and the champion (hollow) on one scale."""
    rows = [
        (name, new, old if old is not None and _fits(old) else None)
        for name, new, old in rows
        if _fits(new)
    ]
    values = [value for _, *pair in rows for value in pair if value is not None]
    if not values:
        return _empty("no group was evaluated")
    height, (low, high) = ROW_HEIGHT * len(rows) + 30, _bounds(values)
    x_of = _scale(low, high, NAME_WIDTH + 10, WIDTH - RIGHT - 8)
    parts = [
        _line("grid", x_of(x), x_of(x), 4, height - 24)
        + _text(x_of(x), height - 8, f"{x:.4g}", "middle")
        for x in _ticks(low, high)
    ]
    for index, (name, candidate, champion) in enumerate(rows):
        y = ROW_HEIGHT * index + 16
        parts.append(_name(name, y + 4))
        if champion is not None:
            parts.append(_line("bond", x_of(champion), x_of(candidate), y, y))
            parts.append(_circle("hollow", x_of(champion), y, 7, f"champion {champion:.5g}"))
        parts.append(_circle("mark", x_of(candidate), y, 5, f"candidate {candidate:.5g}"))
    return _svg(height, parts)


def bars(rows: Sequence[tuple[str, float]], limit: float | None = None) -> str:
    """One horizontal bar for each row. ``limit`` is drawn as a line; longer bars stand out."""
    rows = [(name, value) for name, value in rows if _fits(value)]
    if not rows:
        return _empty("none")
    height = ROW_HEIGHT * len(rows) + 10
    longest = max([*(abs(value) for _, value in rows), limit or 0.0]) or 1.0
    x_of = _scale(0, longest, NAME_WIDTH + 8, WIDTH - RIGHT - 60)
    parts = []
    for index, (name, value) in enumerate(rows):
        y, end = ROW_HEIGHT * index + 6, x_of(abs(value))
        css = "over" if limit is not None and abs(value) > limit else "bar"
        parts.append(_name(name, y + 12))
        parts.append(_rect(css, x_of(0), y, max(1.0, end - x_of(0)), 15))
        parts.append(_text(end + 5, y + 12, f"{value:.4g}", "start"))
    if limit is not None:
        parts.append(_line("limit", x_of(limit), x_of(limit), 0, height - 4))
    return _svg(height, parts)


def columns(values: Sequence[int], wanted: Sequence[int], height: int = 150) -> str:
    """One column for each round: the devices that took part, in front of those that were asked."""
    if not values:
        return _empty("no round was finished")
    tallest, bottom = max([*values, *wanted, 1]), height - 24
    step = (WIDTH - LEFT - RIGHT) / len(values)
    y_of = _scale(0, tallest, bottom, 10)
    parts = [_text(LEFT - 6, y_of(tick) + 4, f"{tick:g}", "end") for tick in sorted({0, tallest})]
    for index, (value, asked) in enumerate(zip(values, wanted, strict=True)):
        x, width = LEFT + step * index + step * 0.1, max(0.5, step * 0.8)
        title = f"round {index + 1}: {value} of {asked}"
        parts.append(_rect("ghost", x, y_of(asked), width, bottom - y_of(asked)))
        parts.append(_rect("bar", x, y_of(value), width, bottom - y_of(value), title))
    parts.append(_text((LEFT + WIDTH) / 2, height - 6, f"round 1 to {len(values)}", "middle"))
    return _svg(height, parts)


def histogram(values: Sequence[float], bins: int = 12) -> str:
    """The number of devices in each of at most ``bins`` equal ranges of the metric."""
    finite = [value for value in values if _fits(value)]
    if not finite:
        return _empty("no device evaluated it")
    low, high = min(finite), max(finite)
    if low == high:
        return bars([(f"{low:.4g}", len(finite))])
    counts = [0] * min(bins, len(finite))
    for value in finite:
        counts[min(len(counts) - 1, int((value - low) / (high - low) * len(counts)))] += 1
    width = (high - low) / len(counts)
    edges = [low + width * index for index in range(len(counts) + 1)]
    return bars(
        [
            (f"{start:.4g} to {end:.4g}", count)
            for start, end, count in zip(edges, edges[1:], counts, strict=False)
        ]
    )


def _fits(value: float) -> bool:
    """Whether a number has a place on a scale."""
    return math.isfinite(value) and abs(value) < 1e100


def _bounds(values: Sequence[float]) -> Point:
    """The range of an axis: that of the values with a margin."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    return low - margin, high + margin


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """The linear map of ``low`` to ``start`` and ``high`` to ``end``."""
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers within a range."""
    step = 10 ** math.floor(math.log10((high - low) or 1.0))
    step = next(
        (step * factor for factor in (0.2, 0.5, 1.0, 2.0) if (high - low) / (step * factor) <= 6),
        step * 5,
    )
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]


def _line(css: str, x1: float, x2: float, y1: float, y2: float) -> str:
    place = f'x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"'
    return f'<line class="{css}" {place}/>'


def _circle(css: str, x: float, y: float, radius: float, title: str) -> str:
    place = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"'
    return f'<circle class="{css}" {place}><title>{escape(title)}</title></circle>'


def _rect(css: str, x: float, y: float, width: float, height: float, title: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    body = f"><title>{escape(title)}</title></rect>" if title else "/>"
    return f'<rect class="{css}" {place}{body}'


def _text(x: float, y: float, text: str, anchor: str, title: str = "") -> str:
    more = f"<title>{escape(title)}</title>" if title else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}{more}</text>'


def _name(name: str, y: float) -> str:
    """A row's name, shortened; the whole one is its title."""
    short = name if len(name) <= NAME_CHARACTERS else name[: NAME_CHARACTERS - 1] + "…"
    return _text(NAME_WIDTH, y, short, "end", name)


def _empty(text: str) -> str:
    return f'<p class="none">{escape(text)}</p>'


def _svg(height: float, parts: Sequence[str]) -> str:
    body = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img">{body}</svg>'
