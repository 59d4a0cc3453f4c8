"""What is measured of a deployment: log metric filters, dashboard and alarms.

The stacks create them, and the local cloud evaluates the filters.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fl_runtime.server.telemetry.log_events import EMBEDDED, NAMESPACE


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A metric that is read from the JSON lines of one log group."""

    metric: str
    group: str
    """``server``, ``proxy``, ``iot-errors`` or a function's name."""
    pattern: str
    value: str = "1"
    """A number, or the JSON field that holds it."""
    unit: str = "Count"
    dimensions: dict[str, str] = field(default_factory=dict)
    """JSON field by dimension. Each of its values is a metric of its own, and is charged as one."""


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """When a person is told. The metric is ours, or an AWS service's with its ``dimension``."""

    name: str
    metric: str
    threshold: float
    """Alarms at this value and above."""
    meaning: str
    statistic: str = "Sum"
    minutes: int = 5
    periods: int = 1
    namespace: str = NAMESPACE
    dimension: str = ""


@dataclass(frozen=True, kw_only=True)
class Widget:
    """A graph of the dashboard."""

    title: str
    metrics: tuple[tuple[str, str], ...]
    """Metrics with their statistic. One with a dimension is drawn once for each of its values."""
    unit: str = ""


APP = {"App": "$.app"}
ROUND = '{ $.event = "round" }'

FILTERS = (
    Filter(metric="Rounds", group="server", pattern=ROUND, dimensions=APP),
    Filter(
        metric="Participants", group="server", pattern=ROUND, value="$.participants", dimensions=APP
    ),
    Filter(
        metric="RoundSeconds",
        group="server",
        pattern=ROUND,
        value="$.seconds",
        unit="Seconds",
        dimensions=APP,
    ),
    Filter(
        metric="RoundOverheadSeconds",
        group="server",
        pattern=ROUND,
        value="$.overhead",
        unit="Seconds",
        dimensions=APP,
    ),
    Filter(
        metric="Loss",
        group="server",
        pattern='{ $.event = "round" && $.value = * }',
        value="$.value",
        unit="None",
        dimensions=APP,
    ),
    Filter(
        metric="DeviceFailures",
        group="server",
        pattern='{ $.event = "device-failed" }',
        dimensions={"Code": "$.code"},
    ),
    Filter(metric="FailedReplies", group="server", pattern=ROUND, value="$.failures"),
    Filter(
        metric="RoundAgeSeconds",
        group="server",
        pattern='{ $.event = "progress" }',
        value="$.round_age",
        unit="Seconds",
    ),
    Filter(metric="ServerResumes", group="server", pattern='{ $.event = "resumed" }'),
    Filter(metric="ProxiesLost", group="server", pattern='{ $.event = "proxy-detached" }'),
    Filter(
        metric="CheckpointsDamaged", group="server", pattern='{ $.event = "checkpoint-damaged" }'
    ),
    Filter(metric="CommandsNotSent", group="proxy", pattern='{ $.event = "command-not-sent" }'),
    Filter(
        metric="RunsSucceeded",
        group="conclude",
        pattern='{ $.event = "concluded" && $.ok IS TRUE }',
    ),
    Filter(
        metric="RunsFailed", group="conclude", pattern='{ $.event = "concluded" && $.ok IS FALSE }'
    ),
    Filter(metric="EnrolmentsRefused", group="enrol", pattern='{ $.event = "enrolment-refused" }'),
    Filter(metric="ModelsPromoted", group="rollout", pattern='{ $.event = "promoted" }'),
    Filter(metric="RuleErrors", group="iot-errors", pattern="{ $.ruleName = * }"),
)

ALARMS = (
    Alarm(
        name="round-stuck",
        metric="RoundAgeSeconds",
        threshold=3600,
        statistic="Maximum",
        meaning="a round has been under way for an hour: devices do not answer, or the server "
        "waits for its proxies",
    ),
    Alarm(
        name="devices-failing",
        metric="FailedReplies",
        threshold=50,
        minutes=15,
        meaning="fifty device phases failed within a quarter of an hour",
    ),
    Alarm(
        name="run-failed", metric="RunsFailed", threshold=1, meaning="a run ended without a model"
    ),
    Alarm(
        name="server-resumed",
        metric="ServerResumes",
        threshold=3,
        minutes=60,
        meaning="servers had to be started again three times within an hour",
    ),
    Alarm(
        name="checkpoint-damaged",
        metric="CheckpointsDamaged",
        threshold=1,
        meaning="a checkpoint could not be read; the one before it was used",
    ),
    Alarm(
        name="rule-errors",
        metric="RuleErrors",
        threshold=1,
        meaning="an IoT rule could not write a heartbeat or a reply",
    ),
    Alarm(
        name="enrolments-refused",
        metric="EnrolmentsRefused",
        threshold=5,
        minutes=15,
        meaning="somebody tries to enrol devices that are not expected, or with a wrong token",
    ),
    Alarm(
        name="dead-letters",
        metric="ApproximateNumberOfMessagesVisible",
        threshold=1,
        statistic="Maximum",
        namespace="AWS/SQS",
        dimension="QueueName",
        meaning="a pipeline's callback, an approval or a schedule could not be handled and waits "
        "in the dead-letter queue",
    ),
    Alarm(
        name="executions-failed",
        metric="ExecutionsFailed",
        threshold=1,
        namespace="AWS/States",
        dimension="StateMachineArn",
        meaning="the state machine failed outside a run's own reasons",
    ),
)

WIDGETS = (
    Widget(title="Rounds finished", metrics=(("Rounds", "Sum"),)),
    Widget(title="Loss (the judged metric)", metrics=(("Loss", "Average"),)),
    Widget(title="Participants", metrics=(("Participants", "Average"),), unit="devices"),
    Widget(
        title="Round duration",
        metrics=(("RoundSeconds", "Average"), ("RoundOverheadSeconds", "Average")),
        unit="s",
    ),
    Widget(title="Device failures by code", metrics=(("DeviceFailures", "Sum"),)),
    Widget(title="Runs", metrics=(("RunsSucceeded", "Sum"), ("RunsFailed", "Sum"))),
    Widget(
        title="Bytes over the devices' links",
        metrics=(("BytesUp", "Sum"), ("BytesDown", "Sum")),
        unit="bytes",
    ),
    Widget(title="Estimated cost", metrics=(("EstimatedCost", "Sum"),), unit="USD"),
    Widget(title="Round under way for", metrics=(("RoundAgeSeconds", "Maximum"),), unit="s"),
    Widget(
        title="Trouble",
        metrics=(
            ("ServerResumes", "Sum"),
            ("ProxiesLost", "Sum"),
            ("CommandsNotSent", "Sum"),
            ("RuleErrors", "Sum"),
            ("EnrolmentsRefused", "Sum"),
        ),
    ),
)


def dimensions_of(metric: str) -> tuple[str, ...]:
    """Names of a metric's dimensions."""
    if metric in EMBEDDED:
        return ("App",)
    return tuple(next(f.dimensions for f in FILTERS if f.metric == metric))
