"""``mledgeops dashboard``: draws the deployed CloudWatch dashboard and alarms as a page."""

from __future__ import annotations

import argparse
import datetime
import html
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.cli.output import say, show_json
from pipelines.desk import clouds
from pipelines.local.home import Home

HOURS = 3
MARGIN = datetime.timedelta(minutes=1)
_SEARCH = re.compile(
    r"SEARCH\('\{(?P<namespace>[^,}]+),(?P<dimension>[^}]+)\} MetricName=\"(?P<metric>[^\"]+)\"', '(?P<stat>\w+)', \d+\)"
)
STATES = {"OK": "#2e7d32", "ALARM": "#c62828", "INSUFFICIENT_DATA": "#616161"}
STYLE = """
body{font:15px system-ui,sans-serif;margin:2rem;color:#1b1b1b;background:#fff}h1{font-size:1.4rem}
.grid{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:1rem}figure{margin:0;border:1px solid #ddd;border-radius:6px;padding:.5rem}
figure svg{width:100%;height:auto}table{border-collapse:collapse;margin-bottom:1.5rem}td,th{text-align:left;padding:.25rem .9rem .25rem 0}
"""


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("dashboard", help="draw the dashboard and the alarms as a page")
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        help="the page to write (default: dashboard.html in the home folder)",
    )
    parser.add_argument("--hours", type=float, default=HOURS, help="how far back (default 3)")
    clouds.add_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the page and say which alarms are raised."""
    home = Home.default()
    with clouds.use(arguments.cloud) as cloud:
        from fl_runtime.run.aws import client

        cloudwatch = client("cloudwatch")
        prefix = cloud.deployment.prefix
        alarms = cloudwatch.describe_alarms(AlarmNamePrefix=f"{prefix}-")["MetricAlarms"]
        widgets = graphs(cloudwatch, prefix, arguments.hours)
    out = arguments.out or home.root / "dashboard.html"
    out.write_text(page(prefix, alarms, widgets))
    raised = [alarm["AlarmName"] for alarm in alarms if alarm["StateValue"] == "ALARM"]
    if arguments.json:
        show_json(
            {
                "page": str(out),
                "alarms": {alarm["AlarmName"]: alarm["StateValue"] for alarm in alarms},
                "graphs": {
                    title: {name: [value for _, value in points] for name, points in series}
                    for title, series, _ in widgets
                },
            }
        )
    else:
        say(f"{out}\nalarms raised: {', '.join(raised) or 'none'}")
    return 0


Series = list[tuple[str, list[tuple[datetime.datetime, float]]]]


def graphs(cloudwatch: Any, name: str, hours: float) -> list[tuple[str, Series, str]]:
    """Each widget's title, its lines with their points, and its unit."""
    import json

    body = json.loads(cloudwatch.get_dashboard(DashboardName=name)["DashboardBody"])
    end = datetime.datetime.now(datetime.UTC)
    start = end - datetime.timedelta(hours=hours)
    drawn = []
    for widget in body["widgets"]:
        properties = widget["properties"]
        lines: Series = []
        for entry in properties["metrics"]:
            for label, metric, statistic in _resolved(cloudwatch, entry):
                query = {
                    "Id": "m",
                    "MetricStat": {"Metric": metric, "Period": 60, "Stat": statistic},
                }
                found = cloudwatch.get_metric_data(
                    MetricDataQueries=[query],
                    StartTime=start,
                    EndTime=end + datetime.timedelta(minutes=1),
                )
                result = found["MetricDataResults"][0]
                lines.append(
                    (label, sorted(zip(result["Timestamps"], result["Values"], strict=True)))
                )
        drawn.append(
            (
                properties["title"],
                lines,
                properties.get("yAxis", {}).get("left", {}).get("label", ""),
            )
        )
    return drawn


def _resolved(cloudwatch: Any, entry: list[Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A widget's entry as metrics: a search gives one for each value of its dimension. Raises
    ValueError for one it cannot read.
    """
    if isinstance(entry[0], str):
        options = entry[-1] if isinstance(entry[-1], dict) else {}
        yield (
            entry[1],
            {"Namespace": entry[0], "MetricName": entry[1]},
            options.get("stat", "Average"),
        )
        return
    search = _SEARCH.fullmatch(entry[0]["expression"])
    if search is None:
        raise ValueError(
            f"The dashboard's expression {entry[0]['expression']!r} cannot be drawn here."
        )
    pages = cloudwatch.get_paginator("list_metrics").paginate(
        Namespace=search["namespace"], MetricName=search["metric"]
    )
    for metric in (m for page in pages for m in page["Metrics"]):
        if [dimension["Name"] for dimension in metric["Dimensions"]] == [search["dimension"]]:
            yield f"{search['metric']} {metric['Dimensions'][0]['Value']}", metric, search["stat"]


def page(name: str, alarms: list[dict[str, Any]], widgets: list[tuple[str, Series, str]]) -> str:
    """The page, in itself: no script, nothing fetched."""
    rows = "".join(
        _row(alarm)
        for alarm in sorted(alarms, key=lambda a: (a["StateValue"] != "ALARM", a["AlarmName"]))
    )
    times = [at for _, series, _ in widgets for _, points in series for at, _ in points]
    figures = "".join(f"<figure>{_drawing(*widget, times)}</figure>" for widget in widgets)
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(name)}</title><style>{STYLE}</style>"
        f"<h1>{html.escape(name)}: rounds and alarms</h1><table>{rows}</table><div class='grid'>{figures}</div></html>\n"
    )


def _row(alarm: dict[str, Any]) -> str:
    state = alarm["StateValue"]
    cells = (
        f"<b>{state.replace('_', ' ').lower()}</b>",
        html.escape(alarm["AlarmName"]),
        html.escape(alarm.get("AlarmDescription", "")),
    )
    return (
        f"<tr style='color:{STATES[state]}'>"
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
    )


def _drawing(title: str, lines: Series, unit: str, times: list[datetime.datetime]) -> str:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
    axes.set_title(title, fontsize=10)
    axes.set_ylabel(unit, fontsize=8)
    axes.tick_params(labelsize=7)
    drawn = [line for line in lines if line[1]]
    for label, points in drawn:
        axes.plot(
            [at for at, _ in points],
            [value for _, value in points],
            marker="o",
            markersize=3,
            linewidth=1,
            label=label,
        )
    if drawn:
        axes.legend(fontsize=7)
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.set_xlim(min(times) - MARGIN, max(times) + MARGIN)  # the same for all graphs
    else:
        axes.text(
            0.5, 0.5, "no data", ha="center", va="center", transform=axes.transAxes, color="#888"
        )
        axes.set_xticks([])
    for label in axes.get_xticklabels():
        label.set_rotation(20)
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg")
    plt.close(figure)
    return drawing.getvalue()[drawing.getvalue().index("<svg") :]
