"""Starts a run as a SageMaker pipeline execution, follows it, and reports it. The same on both
clouds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fl_runtime.run.records import RoundRecord
from pipelines.deployment import Deployment
from pipelines.run.clients import RunClients
from pipelines.run.executions import Executions
from pipelines.run.plan import RunPlan
from pipelines.run.publication import publish
from pipelines.run.report import RunReport, finished_rounds, report_of

POLL_SECONDS = 0.4


@dataclass(frozen=True)
class Started:
    """A pipeline execution under way."""

    arn: str
    app: str
    """The app's name."""
    devices: int
    at: float
    """By the runner's clock."""


class Runner:
    """Runs plans on one deployment."""

    def __init__(
        self,
        deployment: Deployment,
        clients: RunClients,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deployment = deployment
        self._clients = clients
        self._executions = Executions(clients.sagemaker, deployment.queue_url)
        self._sleep = sleep
        self._clock = clock

    def start(self, plan: RunPlan) -> Started:
        """Publish the app and its pipeline, and start it with the plan's parameters."""
        name = publish(plan, self._deployment, self._clients)
        arn = self._executions.start(name, plan.parameters())
        return Started(arn, plan.app.name, plan.devices, self._clock())

    def follow(
        self, started: Started, check: Callable[[], None] = lambda: None, after: int = 0
    ) -> Iterator[RoundRecord]:
        """Yield each finished round above ``after`` until the pipeline has ended. ``check`` is
        called at each poll and may raise.
        """
        seen, run = after, ""
        while True:
            check()
            # The steps are read until one of them names the run: then the status is enough.
            ended = self._executions.ended(started.arn)
            run = run or self._executions.read(started.arn).run
            for record in finished_rounds(self._clients.objects, run, seen) if run else ():
                seen = record.round
                yield record
            if ended:
                return
            self._sleep(POLL_SECONDS)

    def ended(self, arn: str) -> bool:
        """Whether a pipeline execution has ended."""
        return self._executions.read(arn).ended

    def run_of(self, arn: str) -> str:
        """The run of a pipeline execution. Empty while there is none."""
        return self._executions.read(arn).run

    def stop(self, started: Started, seconds: float) -> bool:
        """Stop the pipeline and wait until it has; False when it takes longer."""
        self._executions.stop(started.arn)
        deadline = self._clock() + seconds
        while self._clock() < deadline:
            if self.ended(started.arn):
                return True
            self._sleep(POLL_SECONDS)
        return False

    def report(self, started: Started) -> RunReport:
        """All that is known of a run that has ended."""
        snapshot = self._executions.read(started.arn)
        state = self._clients.runs.get(snapshot.run) if snapshot.run else None
        report = report_of(snapshot, started.app, started.devices, self._clients.objects, state)
        report.seconds = round(self._clock() - started.at, 2)
        report.pipeline_execution_arn = started.arn
        if report.model_package_arn:
            report.approval = self._executions.approval(report.model_package_arn)
        return report
