"""CloudWatch's log metric filters on one machine: the emulator stores them, this evaluates them.

Of the pattern syntax, what JSON log lines need: comparisons, ``= *``, ``IS TRUE|FALSE|NULL``,
``EXISTS``, ``NOT EXISTS``,
``&&``, ``||`` and parentheses. Anything else is refused, so a filter that this cannot read fails at
the cloud's start.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax-for-Metric-Filters.html
"""

from __future__ import annotations

import fnmatch
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from edge.logs import event

logger = logging.getLogger(__name__)

Line = dict[str, Any]
Predicate = Callable[[Line], bool]

POLL_SECONDS = 2.0
OVERLAP_MS = 10_000
"""Log events may arrive a little late: each look goes back so far, and counts none twice."""
_TOKEN = re.compile(
    r'\s*(?:(&&|\|\||[(){}])|(\$(?:\.[A-Za-z0-9_\-]+)+)|(!=|<=|>=|=|<|>)|("(?:[^"\\]|\\.)*")|(NOT EXISTS|EXISTS|IS)|([^\s(){}&|]+))'
)
_ABSENT = object()
_WORDS = {"TRUE": True, "FALSE": False, "NULL": None}
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
}


class PatternError(ValueError):
    """A filter pattern that cannot be read."""


def parse(pattern: str) -> Predicate:
    """A JSON filter pattern as a predicate; raises PatternError."""
    return _Parser(pattern).whole()


class _Parser:
    """Recursive descent over ``{ or }``; ``&&`` binds before ``||``."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._tokens = [match.group().strip() for match in _TOKEN.finditer(pattern)]
        if "".join(self._tokens).replace(" ", "") != re.sub(r"\s", "", pattern):
            raise self._wrong()
        self._at = 0

    def whole(self) -> Predicate:
        self._expect("{")
        predicate = self._either()
        self._expect("}")
        if self._at != len(self._tokens):
            raise self._wrong()
        return predicate

    def _either(self) -> Predicate:
        terms = [self._all()]
        while self._take("||"):
            terms.append(self._all())
        return lambda line: any(term(line) for term in terms)

    def _all(self) -> Predicate:
        terms = [self._term()]
        while self._take("&&"):
            terms.append(self._term())
        return lambda line: all(term(line) for term in terms)

    def _term(self) -> Predicate:
        if self._take("("):
            inner = self._either()
            self._expect(")")
            return inner
        selector, operator = self._next(), self._next()
        if not selector.startswith("$."):
            raise self._wrong()
        if operator in ("EXISTS", "NOT EXISTS"):
            return lambda line: (_field(line, selector) is not _ABSENT) == (operator == "EXISTS")
        value = self._next()
        if operator == "IS" and value in _WORDS:
            return lambda line: _field(line, selector) is _WORDS[value]
        if operator not in _COMPARE:
            raise self._wrong()
        return _comparison(selector, operator, value, self._wrong)

    def _next(self) -> str:
        if self._at >= len(self._tokens):
            raise self._wrong()
        self._at += 1
        return self._tokens[self._at - 1]

    def _take(self, token: str) -> bool:
        found = self._at < len(self._tokens) and self._tokens[self._at] == token
        self._at += found
        return found

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise self._wrong()

    def _wrong(self) -> PatternError:
        return PatternError(
            f"The filter pattern {self._pattern!r} is not one that JSON log lines can be matched with here."
        )


def _comparison(
    selector: str, operator: str, value: str, wrong: Callable[[], PatternError]
) -> Predicate:
    if value == "*":
        return lambda line: (_field(line, selector) is not _ABSENT) == (operator == "=")
    if value.startswith('"'):
        text = json.loads(value)
        return lambda line: (
            (isinstance(found := _field(line, selector), str) and fnmatch.fnmatchcase(found, text))
            == (operator == "=")
        )
    try:
        number = float(value)
    except ValueError as error:
        raise wrong() from error
    return lambda line: (
        _number(found := _field(line, selector)) and _COMPARE[operator](float(found), number)
    )


def _field(line: Line, selector: str) -> Any:
    found: Any = line
    for part in selector.split(".")[1:]:
        if not isinstance(found, dict) or part not in found:
            return _ABSENT
        found = found[part]
    return found


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of one metric."""

    namespace: str
    metric: str
    value: float
    unit: str
    dimensions: tuple[tuple[str, str], ...] = ()

    def datum(self, seconds: float) -> dict[str, Any]:
        """As PutMetricData takes it."""
        dimensions = [{"Name": name, "Value": value} for name, value in self.dimensions]
        return {
            "MetricName": self.metric,
            "Value": self.value,
            "Unit": self.unit,
            "Dimensions": dimensions,
            "Timestamp": seconds,
        }


class Rule:
    """A metric filter as CloudWatch Logs describes it."""

    def __init__(self, described: dict[str, Any]) -> None:
        self._matches = parse(described["filterPattern"])
        self._transformations = described["metricTransformations"]

    def points(self, line: Line) -> Iterator[Point]:
        """What one line adds. A value or a dimension that the line lacks adds nothing, as on AWS."""
        if not self._matches(line):
            return
        for t in self._transformations:
            text = str(t["metricValue"])
            value = _field(line, text) if text.startswith("$.") else float(text)
            dimensions = tuple(
                (name, _field(line, selector))
                for name, selector in sorted((t.get("dimensions") or {}).items())
            )
            if _number(value) and all(isinstance(found, str) for _, found in dimensions):
                yield Point(
                    namespace=t["metricNamespace"],
                    metric=t["metricName"],
                    value=float(value),
                    unit=t.get("unit") or "None",
                    dimensions=dimensions,
                )


def embedded(line: Line) -> Iterator[Point]:
    """Points of a line in the embedded metric format."""
    directives = (
        line.get("_aws", {}).get("CloudWatchMetrics", [])
        if isinstance(line.get("_aws"), dict)
        else []
    )
    for directive in directives:
        for names in directive["Dimensions"]:
            dimensions = tuple((name, str(line[name])) for name in names)
            for metric in directive["Metrics"]:
                yield Point(
                    namespace=directive["Namespace"],
                    metric=metric["Name"],
                    value=float(line[metric["Name"]]),
                    unit=metric.get("Unit", "None"),
                    dimensions=dimensions,
                )


class MetricFilters:
    """Reads all log groups that have filters, and puts what they give to CloudWatch, where alarms
    and dashboards see it.
    """

    def __init__(self, logs: Any, cloudwatch: Any) -> None:
        self._logs = logs
        self._cloudwatch = cloudwatch
        self._rules: dict[str, list[Rule]] = {}
        self._seen: dict[str, int] = {}
        self._since = int(time.time() * 1000)
        self._stop = threading.Event()

    def load(self) -> None:
        """Read the deployed filters; raises PatternError for one that could never match."""
        for page in self._logs.get_paginator("describe_metric_filters").paginate():
            for described in page["metricFilters"]:
                self._rules.setdefault(described["logGroupName"], []).append(Rule(described))

    def serve(self) -> None:
        """Look until :meth:`stop`, and once more then."""
        while not self._stop.wait(POLL_SECONDS):
            self.look()
        self.look()

    def stop(self) -> None:
        """End :meth:`serve`."""
        self._stop.set()

    def look(self) -> None:
        """Take over what is new in the logs."""
        since = self._since - OVERLAP_MS
        self._since = int(time.time() * 1000)
        self._seen = {identifier: at for identifier, at in self._seen.items() if at >= since}
        for group in self._rules:
            try:
                for item in self._new(group, since):
                    self._put(group, item)
            except (ClientError, BotoCoreError) as error:
                event(logger, "metrics-not-read", logging.WARNING, group=group, reason=str(error))

    def _new(self, group: str, since: int) -> Iterator[dict[str, Any]]:
        for page in self._logs.get_paginator("filter_log_events").paginate(
            logGroupName=group, startTime=since
        ):
            for item in page["events"]:
                # Lines of functions carry no id in the emulator.
                identifier = f"{group}/{item['logStreamName']}/{item.get('eventId') or hash((item['timestamp'], item['message']))}"
                if identifier not in self._seen:
                    self._seen[identifier] = item["timestamp"]
                    yield item

    def _put(self, group: str, item: dict[str, Any]) -> None:
        try:
            line = json.loads(item["message"])
        except ValueError:
            return
        if not isinstance(line, dict):
            return
        try:
            points = [
                *(p for rule in self._rules[group] for p in rule.points(line)),
                *embedded(line),
            ]
        except (KeyError, TypeError, ValueError) as error:
            event(
                logger,
                "metrics-not-read",
                logging.WARNING,
                group=group,
                reason=f"a line is not in the embedded metric format: {error!r}",
            )
            return
        for point in points:
            self._cloudwatch.put_metric_data(
                Namespace=point.namespace, MetricData=[point.datum(item["timestamp"] / 1000)]
            )
