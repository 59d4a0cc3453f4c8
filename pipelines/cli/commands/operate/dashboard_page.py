"""The dashboard's page: self-contained HTML, without scripts."""

from __future__ import annotations

import datetime
import html
import io
from dataclasses import dataclass
from typing import Any

MARGIN = datetime.timedelta(minutes=1)
COLOURS = {"OK": "#2e7d32", "ALARM": "#c62828", "INSUFFICIENT_DATA": "#616161"}
STYLE = """
body{font:15px system-ui,sans-serif;margin:2rem;color:#1b1b1b;background:#fff}
h1{font-size:1.4rem}
.grid{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:1rem}
figure{margin:0;border:1px solid #ddd;border-radius:6px;padding:.5rem}
figure svg{width:100%;height:auto}
table{border-collapse:collapse;margin-bottom:1.5rem}
td,th{text-align:left;padding:.25rem .9rem .25rem 0}
"""

Points = list[tuple[datetime.datetime, float]]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A widget of the dashboard."""

    title: str
    series: list[tuple[str, Points]]
    """Label and points of each line."""
    unit: str


def page_text(name: str, alarms: list[dict[str, Any]], graphs: list[Graph]) -> str:
    """The page: raised alarms first, then the graphs over the same time."""
    ordered = sorted(alarms, key=lambda a: (a["StateValue"] != "ALARM", a["AlarmName"]))
    rows = "".join(_row(alarm) for alarm in ordered)
    times = [at for graph in graphs for _, points in graph.series for at, _ in points]
    figures = "".join(f"<figure>{draw(graph, times)}</figure>" for graph in graphs)
    title = html.escape(name)
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title>"
        f"<style>{STYLE}</style><h1>{title}: rounds and alarms</h1><table>{rows}</table>"
        f"<div class='grid'>{figures}</div></html>\n"
    )


def _row(alarm: dict[str, Any]) -> str:
    state = alarm["StateValue"]
    cells = (
        f"<b>{state.replace('_', ' ').lower()}</b>",
        html.escape(alarm["AlarmName"]),
        html.escape(alarm.get("AlarmDescription", "")),
    )
    columns = "".join(f"<td>{cell}</td>" for cell in cells)
    return f"<tr style='color:{COLOURS[state]}'>{columns}</tr>"


def draw(graph: Graph, times: list[datetime.datetime]) -> str:
    """A graph as SVG. ``times``: of the points of all graphs, which share their time axis."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
    axes.set_title(graph.title, fontsize=10)
    axes.set_ylabel(graph.unit, fontsize=8)
    axes.tick_params(labelsize=7)
    drawn = [(label, points) for label, points in graph.series if points]
    for label, points in drawn:
        at, values = zip(*points, strict=True)
        axes.plot(at, values, marker="o", markersize=3, linewidth=1, label=label)
    if drawn:
        axes.legend(fontsize=7)
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.set_xlim(min(times) - MARGIN, max(times) + MARGIN)
    else:
        centre = {"ha": "center", "va": "center", "transform": axes.transAxes, "color": "#888"}
        axes.text(0.5, 0.5, "no data", **centre)
        axes.set_xticks([])
    for tick in axes.get_xticklabels():
        tick.set_rotation(20)
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg")
    plt.close(figure)
    text = drawing.getvalue()
    return text[text.index("<svg") :]  # without the XML declaration
