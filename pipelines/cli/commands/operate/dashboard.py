"""``mledgeops dashboard``: draws the deployed CloudWatch dashboard and alarms as a page."""

from __future__ import annotations

import argparse
import datetime
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fl_runtime.run.aws import client
from pipelines.cli.commands.operate.dashboard_page import Graph, page_text
from pipelines.cli.options import declare
from pipelines.cli.output import answer
from pipelines.desk import clouds
from pipelines.errors import UsageError
from pipelines.local.home import Home

HOURS = 3
PERIOD_SECONDS = 60
_SEARCH = re.compile(
    r"SEARCH\('\{(?P<namespace>[^,}]+),(?P<dimension>[^}]+)\} "
    r"MetricName=\"(?P<metric>[^\"]+)\"', '(?P<stat>\w+)', \d+\)"
)


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("dashboard")
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        help="the page to write (default: dashboard.html in the home folder)",
    )
    parser.add_argument("--hours", type=float, default=HOURS, help="how far back (default 3)")
    declare(parser, run)


def run(arguments: argparse.Namespace) -> int:
    """Write the page, and list the alarms that are raised."""
    home = Home.default()
    with clouds.use(arguments.cloud) as cloud:
        cloudwatch, prefix = client("cloudwatch"), cloud.deployment.prefix
        alarms = cloudwatch.describe_alarms(AlarmNamePrefix=f"{prefix}-")["MetricAlarms"]
        graphs = read_graphs(cloudwatch, prefix, arguments.hours)
    out = arguments.out or home.root / "dashboard.html"
    out.write_text(page_text(prefix, alarms, graphs))
    raised = [alarm["AlarmName"] for alarm in alarms if alarm["StateValue"] == "ALARM"]
    document = {
        "page": str(out),
        "alarms": {alarm["AlarmName"]: alarm["StateValue"] for alarm in alarms},
        "graphs": {
            graph.title: {name: [value for _, value in points] for name, points in graph.series}
            for graph in graphs
        },
    }
    answer(arguments.json, document, f"{out}\nalarms raised: {', '.join(raised) or 'none'}")
    return 0


def read_graphs(cloudwatch: Any, dashboard: str, hours: float) -> list[Graph]:
    """The dashboard's widgets with the values of the last hours."""
    body = json.loads(cloudwatch.get_dashboard(DashboardName=dashboard)["DashboardBody"])
    return [_graph(cloudwatch, widget["properties"], hours) for widget in body["widgets"]]


def _graph(cloudwatch: Any, properties: dict[str, Any], hours: float) -> Graph:
    end = datetime.datetime.now(datetime.UTC)
    times = {
        "StartTime": end - datetime.timedelta(hours=hours),
        "EndTime": end + datetime.timedelta(seconds=PERIOD_SECONDS),  # the current period too
    }
    series = []
    for label, metric, statistic in (
        found for entry in properties["metrics"] for found in resolve(cloudwatch, entry)
    ):
        query = {"Metric": metric, "Period": PERIOD_SECONDS, "Stat": statistic}
        answer = cloudwatch.get_metric_data(
            MetricDataQueries=[{"Id": "m", "MetricStat": query}], **times
        )
        result = answer["MetricDataResults"][0]
        points = sorted(zip(result["Timestamps"], result["Values"], strict=True))
        series.append((label, points))
    unit = properties.get("yAxis", {}).get("left", {}).get("label", "")
    return Graph(title=properties["title"], series=series, unit=unit)


def resolve(cloudwatch: Any, entry: list[Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A widget's entry as (label, metric, statistic).

    A search expression gives one metric for each value of its dimension.

    Raises:
        UsageError: The expression is not one of ours.

    """
    if isinstance(entry[0], str):
        options = entry[-1] if isinstance(entry[-1], dict) else {}
        metric = {"Namespace": entry[0], "MetricName": entry[1]}
        yield entry[1], metric, options.get("stat", "Average")
        return
    expression = entry[0]["expression"]
    search = _SEARCH.fullmatch(expression)
    if search is None:
        raise UsageError(f"The dashboard's expression {expression!r} cannot be drawn here.")
    pages = cloudwatch.get_paginator("list_metrics").paginate(
        Namespace=search["namespace"], MetricName=search["metric"]
    )
    for metric in (found for page in pages for found in page["Metrics"]):
        if [dimension["Name"] for dimension in metric["Dimensions"]] == [search["dimension"]]:
            yield f"{search['metric']} {metric['Dimensions'][0]['Value']}", metric, search["stat"]
