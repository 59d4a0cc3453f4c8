"""Replies whose metrics differ from those of most devices."""

from __future__ import annotations

import collections

from flwr.app import Message

from fl_runtime.run.messages import mismatched_metrics
from fl_runtime.run.records import PhaseStats


def drop_metric_outliers(replies: list[Message], stats: PhaseStats) -> list[Message]:
    """Drop replies whose metric names are not those of most devices, and count them as failures.

    Flower's aggregation raises when replies have different metrics, so one device would end the
    run.
    """
    layouts = collections.Counter(
        frozenset(result.metrics) for result in stats.results if result.status == "ok"
    )
    if len(layouts) < 2:
        return replies
    usual = layouts.most_common(1)[0][0]
    stats.results = [
        mismatched_metrics(result)
        if result.status == "ok" and frozenset(result.metrics) != usual
        else result
        for result in stats.results
    ]
    return [reply for reply in replies if reply.has_error() or _metric_names(reply) == usual]


def _metric_names(reply: Message) -> frozenset[str]:
    return frozenset(next(iter(reply.content.metric_records.values())))
