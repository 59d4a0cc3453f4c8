"""The server's log lines that metrics are made of: rounds, failures, progress.

Most are read by log metric filters (:mod:`pipelines.aws.metrics`). Bytes and cost carry their own
unit and dimension
in the embedded metric format, because a filter would need a log line for each.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from edge.logs import event
from fl_runtime.run.cost import Topology, round_cost
from fl_runtime.run.records import RoundRecord
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.model.objective import Objective

logger = logging.getLogger(__name__)

NAMESPACE = "MLEdgeOps"
EMBEDDED = {"BytesUp": "Bytes", "BytesDown": "Bytes", "EstimatedCost": "None"}
PROGRESS_SECONDS = 60.0
FAILURES_LOGGED = 100
"""Of one round, one line each: a fleet that fails as a whole must not fill the log."""


class RoundLog:
    """Writes one run's lines."""

    def __init__(
        self,
        spec: RunSpec,
        topology: Topology,
        objective: Objective,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._spec = spec
        self._topology = topology
        self._objective = objective
        self._clock = clock
        self._now = now
        self._began = clock()
        self._told = clock()
        self._round = 0

    def finished(self, record: RoundRecord) -> None:
        """One line for the round, and one for each device phase that failed in it."""
        judged: dict[str, Any] = self._judged(record)
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
            _aws=self._directive(),
            **judged,
        )
        failed = [row for row in record.devices if row.status == "error"]
        for row in failed[:FAILURES_LOGGED]:
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
        self._round, self._began = record.round, self._clock()

    def progress(self) -> None:
        """Called every few seconds: once a minute, say how long the round has been under way."""
        if self._clock() - self._told < PROGRESS_SECONDS:
            return
        self._told = self._clock()
        event(
            logger,
            "progress",
            run=self._spec.run,
            finished_round=self._round,
            round_age=round(self._clock() - self._began, 1),
        )

    def _judged(self, record: RoundRecord) -> dict[str, float]:
        """The judged metric under one name for all apps, and all metrics under their own."""
        reported = record.evaluate or record.server
        fields = {
            f"evaluate_{key}": float(value)
            for key, value in reported.items()
            if isinstance(value, int | float)
        }
        judged = self._objective.value_if_reported(reported)
        return fields if judged is None else {**fields, "value": judged.value}

    def _directive(self) -> dict[str, object]:
        metrics = [{"Name": name, "Unit": unit} for name, unit in EMBEDDED.items()]
        return {
            "Timestamp": int(self._now() * 1000),
            "CloudWatchMetrics": [
                {"Namespace": NAMESPACE, "Dimensions": [["App"]], "Metrics": metrics}
            ],
        }
