"""CloudWatch's log metric filters: the emulator stores them, this module evaluates them."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from edge.logs import event
from pipelines.local.emulators.filter_patterns import Line, field, is_number, parse

logger = logging.getLogger(__name__)

POLL_SECONDS = 2.0
OVERLAP_MS = 10_000
"""Log events may arrive late: each poll reads so much again, and counts no event twice."""


@dataclass(frozen=True, kw_only=True)
class MetricPoint:
    """One value of one metric."""

    namespace: str
    metric: str
    value: float
    unit: str
    dimensions: tuple[tuple[str, str], ...] = ()

    def datum(self, seconds: float) -> dict[str, Any]:
        """As PutMetricData takes it, with a time in seconds since the epoch."""
        dimensions = [{"Name": name, "Value": value} for name, value in self.dimensions]
        return {
            "MetricName": self.metric,
            "Value": self.value,
            "Unit": self.unit,
            "Dimensions": dimensions,
            "Timestamp": seconds,
        }


class FilterRule:
    """A metric filter as CloudWatch Logs describes it."""

    def __init__(self, described: dict[str, Any]) -> None:
        """Raises PatternError for a pattern that cannot be read."""
        self._matches = parse(described["filterPattern"])
        self._transformations = described["metricTransformations"]

    def points(self, line: Line) -> Iterator[MetricPoint]:
        """Points of one line; a line that lacks the value or a dimension has none, as on AWS."""
        if not self._matches(line):
            return
        for transformation in self._transformations:
            text = str(transformation["metricValue"])
            value = field(line, text) if text.startswith("$.") else float(text)
            dimensions = tuple(
                (name, field(line, selector))
                for name, selector in sorted((transformation.get("dimensions") or {}).items())
            )
            if is_number(value) and all(isinstance(found, str) for _, found in dimensions):
                yield MetricPoint(
                    namespace=transformation["metricNamespace"],
                    metric=transformation["metricName"],
                    value=float(value),
                    unit=transformation.get("unit") or "None",
                    dimensions=dimensions,
                )


def embedded(line: Line) -> Iterator[MetricPoint]:
    """Points of a line in CloudWatch's embedded metric format.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    header = line.get("_aws")
    directives = header.get("CloudWatchMetrics", []) if isinstance(header, dict) else []
    for directive in directives:
        for names in directive["Dimensions"]:
            dimensions = tuple((name, str(line[name])) for name in names)
            for metric in directive["Metrics"]:
                yield MetricPoint(
                    namespace=directive["Namespace"],
                    metric=metric["Name"],
                    value=float(line[metric["Name"]]),
                    unit=metric.get("Unit", "None"),
                    dimensions=dimensions,
                )


class MetricFilters:
    """Polls all log groups that have filters, and puts their points to CloudWatch."""

    def __init__(self, logs: Any, cloudwatch: Any) -> None:
        self._logs = logs
        self._cloudwatch = cloudwatch
        self._rules: dict[str, list[FilterRule]] = {}
        self._seen: dict[str, int] = {}
        self._since = int(time.time() * 1000)
        self._stop = threading.Event()

    def load(self) -> None:
        """Read the deployed filters; raises PatternError for one that cannot be read."""
        for page in self._logs.get_paginator("describe_metric_filters").paginate():
            for described in page["metricFilters"]:
                rules = self._rules.setdefault(described["logGroupName"], [])
                rules.append(FilterRule(described))

    def serve(self) -> None:
        """Poll until :meth:`stop`, and once more then."""
        while not self._stop.wait(POLL_SECONDS):
            self.poll()
        self.poll()

    def stop(self) -> None:
        """Make :meth:`serve` return."""
        self._stop.set()

    def poll(self) -> None:
        """Evaluate the log events that are new."""
        since = self._since - OVERLAP_MS
        self._since = int(time.time() * 1000)
        self._seen = {identifier: at for identifier, at in self._seen.items() if at >= since}
        for group in self._rules:
            try:
                for item in self._new_events(group, since):
                    self._put(group, item)
            except (ClientError, BotoCoreError) as error:
                event(logger, "metrics-not-read", logging.WARNING, group=group, reason=str(error))

    def _new_events(self, group: str, since: int) -> Iterator[dict[str, Any]]:
        pages = self._logs.get_paginator("filter_log_events").paginate(
            logGroupName=group, startTime=since
        )
        for item in (found for page in pages for found in page["events"]):
            # The emulator gives events of Lambda functions no id.
            number = item.get("eventId") or hash((item["timestamp"], item["message"]))
            identifier = f"{group}/{item['logStreamName']}/{number}"
            if identifier not in self._seen:
                self._seen[identifier] = item["timestamp"]
                yield item

    def _put(self, group: str, item: dict[str, Any]) -> None:
        try:
            line = json.loads(item["message"])
        except ValueError:
            return  # not a line of ours: filters match JSON only
        if not isinstance(line, dict):
            return
        try:
            points = [p for rule in self._rules[group] for p in rule.points(line)]
            points += embedded(line)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"a line is not in the embedded metric format: {error!r}"
            event(logger, "metrics-not-read", logging.WARNING, group=group, reason=reason)
            return
        for point in points:
            self._cloudwatch.put_metric_data(
                Namespace=point.namespace, MetricData=[point.datum(item["timestamp"] / 1000)]
            )
