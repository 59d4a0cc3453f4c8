"""The server's log lines that metrics are made of: rounds, failures, progress.

Log metric filters read most of them (:mod:`pipelines.aws.metrics`). Bytes and cost are in the
embedded metric format, with their own unit and dimension, since a filter would need a line for
each:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from edge.logs import event
from fl_runtime.run.cost import Topology, round_cost
from fl_runtime.run.ports import Clock
from fl_runtime.run.records import DeviceRow, RoundRecord, reported_metrics
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.model.objective import Objective

logger = logging.getLogger(__name__)

NAMESPACE = "MLEdgeOps"
EMBEDDED = {"BytesUp": "Bytes", "BytesDown": "Bytes", "EstimatedCost": "None"}
"""Embedded metrics and their units."""
PROGRESS_SECONDS = 60.0
FAILURES_LOGGED = 100
"""Lines for failed devices of one round: a fleet that fails as a whole must not fill the log."""


class RoundLog:
    """Logs the rounds of one run. ``now`` is Unix time in seconds."""

    def __init__(
        self,
        spec: RunSpec,
        topology: Topology,
        objective: Objective,
        *,
        clock: Clock = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._spec = spec
        self._topology = topology
        self._objective = objective
        self._clock = clock
        self._now = now
        self._round_began = clock()
        self._last_progress = clock()
        self._finished_round = 0

    def finished(self, record: RoundRecord) -> None:
        """One line for the round, and one for each device phase that failed in it."""
        cost = round_cost(self._topology, record.seconds.total, len(record.devices))
        event(
            logger,
            "round",
            run=self._spec.run,
            app=self._spec.app_name,
            round=record.round,
            participants=record.participants,
            failures=sum(record.failures.values()),
            seconds=record.seconds.total,
            overhead=record.seconds.overhead,
            BytesUp=record.bytes.up,
            BytesDown=record.bytes.down,
            EstimatedCost=round(cost, 8),
            App=self._spec.app_name,
            _aws=self._embedded_metrics(),
            **self._evaluation(record),
        )
        failed = [row for row in record.devices if row.status == "error"]
        for row in failed[:FAILURES_LOGGED]:
            self._log_failure(row)
        for metric, devices in record.outliers.items():
            event(
                logger,
                "metric-outliers",
                logging.WARNING,
                run=self._spec.run,
                round=record.round,
                metric=metric,
                devices=devices,
                reported=record.evaluate.get(metric),
                robust=record.robust.get(metric),
            )
        self._finished_round, self._round_began = record.round, self._clock()

    def progress(self) -> None:
        """Once a minute, log how long the round has been under way; may be called at any time."""
        now = self._clock()
        if now - self._last_progress < PROGRESS_SECONDS:
            return
        self._last_progress = now
        event(
            logger,
            "progress",
            run=self._spec.run,
            finished_round=self._finished_round,
            round_age=round(now - self._round_began, 1),
        )

    def _log_failure(self, row: DeviceRow) -> None:
        event(
            logger,
            "device-failed",
            logging.WARNING,
            run=self._spec.run,
            round=row.round,
            kind=row.kind,
            device=row.device,
            code=row.code,
            reason=row.reason,
        )

    def _evaluation(self, record: RoundRecord) -> dict[str, Any]:
        """All metrics by their own names, and the objective as ``value``, alike for all apps."""
        reported = record.evaluate or record.server
        fields = {
            f"evaluate_{key}": float(value)
            for key, value in reported.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        judged = reported_metrics(record, self._objective.metric)
        objective = self._objective.value_if_reported(judged)
        return fields if objective is None else {**fields, "value": objective.value}

    def _embedded_metrics(self) -> dict[str, object]:
        metrics = [{"Name": name, "Unit": unit} for name, unit in EMBEDDED.items()]
        directive = {"Namespace": NAMESPACE, "Dimensions": [["App"]], "Metrics": metrics}
        return {"Timestamp": int(self._now() * 1000), "CloudWatchMetrics": [directive]}
