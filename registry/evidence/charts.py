"""Charts of the model card as SVG text. By hand: the function that draws them would not fit into
AWS Lambda with matplotlib.

Sizes are CSS pixels of the view box; colours come from the page's style sheet by class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

Point = tuple[float, float]
WIDTH, LEFT, RIGHT = 460, 56, 12
NAME_WIDTH = 150


def lines(points: Sequence[Point], height: int = 170) -> str:
    """One curve by round, with its first, best and last values readable on the axis."""
    finite = [(x, y) for x, y in points if _fits(y)]
    if not finite:
        return _empty("not reported")
    top, bottom = 12, height - 26
    xs, (low, high) = [x for x, _ in finite], _bounds([y for _, y in finite])
    x_of = _scale(min(xs), max(xs), LEFT + 6, WIDTH - RIGHT - 6)
    y_of = _scale(low, high, bottom, top)
    path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in finite)
    dots = "".join(
        f'<circle class="mark" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="2.5"><title>round {x:g}: {y:.5g}</title></circle>'
        for x, y in finite[-400:]
    )
    ticks = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y_of(y):.1f}" y2="{y_of(y):.1f}"/>'
        + _text(LEFT - 6, y_of(y) + 4, f"{y:.4g}", "end")
        for y in _ticks(low, high)
    )
    rounds = "".join(
        _text(x_of(x), height - 8, f"{x:g}", "middle") for x in sorted({min(xs), max(xs)})
    )
    return _svg(
        height,
        f'{ticks}<polyline class="line" points="{path}"/>{dots}{rounds}{_text((LEFT + WIDTH) / 2, height - 8, "round", "middle")}',
    )


def pairs(rows: Sequence[tuple[str, float, float | None]]) -> str:
    """A row a group: the candidate (filled) and the champion (hollow) on one scale."""
    rows = [
        (name, new, old if old is not None and _fits(old) else None)
        for name, new, old in rows
        if _fits(new)
    ]
    values = [
        value
        for _, candidate, champion in rows
        for value in (candidate, champion)
        if value is not None
    ]
    if not values:
        return _empty("no group was evaluated")
    height, (low, high) = 22 * len(rows) + 30, _bounds(values)
    x_of = _scale(low, high, NAME_WIDTH + 10, WIDTH - RIGHT - 8)
    parts = [
        f'<line class="grid" x1="{x_of(x):.1f}" x2="{x_of(x):.1f}" y1="4" y2="{height - 24}"/>{_text(x_of(x), height - 8, f"{x:.4g}", "middle")}'
        for x in _ticks(low, high)
    ]
    for index, (name, candidate, champion) in enumerate(rows):
        y = 22 * index + 16
        parts.append(_text(NAME_WIDTH, y + 4, _short(name, 22), "end", name))
        if champion is not None:
            parts.append(
                f'<line class="bond" x1="{x_of(champion):.1f}" x2="{x_of(candidate):.1f}" y1="{y}" y2="{y}"/>'
            )
            parts.append(
                f'<circle class="hollow" cx="{x_of(champion):.1f}" cy="{y}" r="7"><title>champion {champion:.5g}</title></circle>'
            )
        parts.append(
            f'<circle class="mark" cx="{x_of(candidate):.1f}" cy="{y}" r="5"><title>candidate {candidate:.5g}</title></circle>'
        )
    return _svg(height, "".join(parts))


def bars(rows: Sequence[tuple[str, float]], limit: float | None = None) -> str:
    """A horizontal bar a row; ``limit`` draws what is allowed."""
    rows = [(name, value) for name, value in rows if _fits(value)]
    if not rows:
        return _empty("none")
    height, most = (
        22 * len(rows) + 10,
        max([abs(value) for _, value in rows] + ([limit] if limit else [])) or 1.0,
    )
    x_of = _scale(0, most, NAME_WIDTH + 8, WIDTH - RIGHT - 60)
    parts = []
    for index, (name, value) in enumerate(rows):
        y = 22 * index + 6
        over = "over" if limit is not None and abs(value) > limit else "bar"
        length = max(1.0, x_of(abs(value)) - x_of(0))
        parts.append(_text(NAME_WIDTH, y + 12, _short(name, 22), "end", name))
        parts.append(
            f'<rect class="{over}" x="{x_of(0):.1f}" y="{y}" width="{length:.1f}" height="15"/>'
        )
        parts.append(_text(x_of(abs(value)) + 5, y + 12, f"{value:.4g}", "start"))
    if limit is not None:
        parts.append(
            f'<line class="limit" x1="{x_of(limit):.1f}" x2="{x_of(limit):.1f}" y1="0" y2="{height - 4}"/>'
        )
    return _svg(height, "".join(parts))


def columns(values: Sequence[int], wanted: Sequence[int], height: int = 150) -> str:
    """A column a round: who took part, of those who were asked."""
    if not values:
        return _empty("no round was finished")
    most, bottom = max([*values, *wanted, 1]), height - 24
    step = (WIDTH - LEFT - RIGHT) / len(values)
    y_of = _scale(0, most, bottom, 10)
    parts = [_text(LEFT - 6, y_of(tick) + 4, f"{tick:g}", "end") for tick in sorted({0, most})]
    for index, (value, asked) in enumerate(zip(values, wanted, strict=True)):
        x, width = LEFT + step * index + step * 0.1, max(0.5, step * 0.8)
        parts.append(
            f'<rect class="ghost" x="{x:.1f}" y="{y_of(asked):.1f}" width="{width:.1f}" height="{bottom - y_of(asked):.1f}"/>'
        )
        parts.append(
            f'<rect class="bar" x="{x:.1f}" y="{y_of(value):.1f}" width="{width:.1f}" height="{bottom - y_of(value):.1f}">'
            f"<title>round {index + 1}: {value} of {asked}</title></rect>"
        )
    parts.append(_text((LEFT + WIDTH) / 2, height - 6, f"round 1 to {len(values)}", "middle"))
    return _svg(height, "".join(parts))


def histogram(values: Sequence[float], bins: int = 12) -> str:
    """How many devices have a value of the metric in each of ``bins`` equal ranges."""
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
    return bars(
        [
            (f"{low + width * i:.4g} to {low + width * (i + 1):.4g}", count)
            for i, count in enumerate(counts)
        ]
    )


def _fits(value: float) -> bool:
    """Whether a number has a place on a scale."""
    return math.isfinite(value) and abs(value) < 1e100


def _bounds(values: Sequence[float]) -> Point:
    low, high = min(values), max(values)
    margin = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    return low - margin, high + margin


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers."""
    step = 10 ** math.floor(math.log10((high - low) or 1.0))
    step = next(
        (step * factor for factor in (0.2, 0.5, 1.0, 2.0) if (high - low) / (step * factor) <= 6),
        step * 5,
    )
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]


def _text(x: float, y: float, text: str, anchor: str, title: str = "") -> str:
    more = f"<title>{escape(title)}</title>" if title else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}{more}</text>'


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _empty(text: str) -> str:
    return f'<p class="none">{escape(text)}</p>'


def _svg(height: float, body: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img">{body}</svg>'
