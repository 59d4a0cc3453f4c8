"""What a notebook shows of our objects: small HTML, texts, pictures, framed pages."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from fl_runtime.run.records import RoundRecord
from pipelines.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "Succeeded": "#137333",
    "Approved": "#137333",
    "Running": "#1a73e8",
    "Starting": "#1a73e8",
    "Queued": "#9a6700",
    "PendingManualApproval": "#9a6700",
    "NotBetter": "#9a6700",
    "Failed": "#b3261e",
    "Rejected": "#b3261e",
}
_CELL = "padding:2px 12px 2px 0;text-align:left;vertical-align:top"


class Text(str):
    """A text that a notebook shows as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class FramedPage:
    """An HTML page, shown in a frame so that its style does not change the notebook's."""

    def __init__(self, page: str) -> None:
        self.page = page

    def __repr__(self) -> str:
        return f"<page of {len(self.page)} characters>"

    def _repr_html_(self) -> str:
        style = "width:100%;height:700px;border:1px solid #ccc"
        return f'<iframe srcdoc="{escape(self.page)}" style="{style}"></iframe>'


class Picture:
    """A matplotlib figure, shown by any notebook, with or without ``%matplotlib inline``."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure

    def __repr__(self) -> str:
        return "<picture>"

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=90, bbox_inches="tight")
        return buffer.getvalue()


def box(title: str, state: str, fields: Mapping[str, Any], note: str = "") -> str:
    """HTML of one object: its name and state, a table of its fields, a note. All of it escaped.

    Examples:
        >>> box("<b>", "Failed", {"app": "digits"}).count("&lt;b&gt;")
        1

    """
    colour = COLOURS.get(state, "#5f6368")
    badge = (
        f'<span style="background:{colour};color:#fff;border-radius:4px;padding:1px 8px;'
        f'margin-left:8px">{escape(state)}</span>'
    )
    rows = "".join(
        f'<tr><th style="{_CELL};font-weight:normal;color:#5f6368">{escape(name)}</th>'
        f'<td style="{_CELL}">{escape(str(value))}</td></tr>'
        for name, value in fields.items()
        if value not in ("", None)
    )
    below = f"<div>{escape(note)}</div>" if note else ""
    return f"<div><b>{escape(title)}</b>{badge}<table>{rows}</table>{below}</div>"


def plot_rounds(records: Sequence[RoundRecord], metric: str) -> Picture:
    """The metrics by round, and where each round's time went.

    ``metric``: the one to draw; empty: all that the devices' evaluation reports.

    Raises:
        UsageError: There are no rounds yet, none of them has the metric, or matplotlib is missing.

    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("Plots need matplotlib: `pip install matplotlib`.") from error

    numbers = [record.round for record in records]
    curves = _curves(records, metric)
    if not numbers or not curves:
        what = f"the metric {metric!r}" if metric and numbers else "any metric"
        raise UsageError(f"No finished round has {what} yet.")
    figure = Figure(figsize=(10, 3.2), layout="tight")
    left, right = figure.subplots(1, 2)
    for name, values in curves.items():
        left.plot(numbers, values, marker="o", label=name)
    left.set(title=" and ".join(curves), xlabel="round", xticks=numbers)
    device = [record.seconds.device for record in records]
    rest = [record.seconds.total - record.seconds.device for record in records]
    right.bar(numbers, device, label="device")
    right.bar(numbers, rest, bottom=device, label="transfer and overhead")
    right.set(title="Where a round's time goes", xlabel="round", ylabel="seconds", xticks=numbers)
    right.legend()
    return Picture(figure)


def _curves(records: Sequence[RoundRecord], metric: str) -> dict[str, list[float]]:
    """By metric, a value for each round; NaN where a round has none."""
    each = [record.evaluate or record.server or record.train for record in records]
    names = [metric] if metric else sorted({name for values in each for name in values})
    curves = {name: [_number(values.get(name)) for values in each] for name in names}
    return {name: values for name, values in curves.items() if any(v == v for v in values)}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
