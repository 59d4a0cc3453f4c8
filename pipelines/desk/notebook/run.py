"""A run that one can hold on to: under way or ended, from any process that reaches its cloud."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from botocore.exceptions import BotoCoreError

from fl_runtime.run.records import RoundRecord, format_metrics
from pipelines.desk.access import Door
from pipelines.desk.lineage import trace_text
from pipelines.desk.lost_runs import settle
from pipelines.desk.notebook.run_view import ENDED, RunView
from pipelines.desk.notebook.show import Picture, Text, plot_rounds
from pipelines.desk.notebook.whereabouts import Handle, handle_of
from pipelines.desk.run_logs import follow_lines, log_text, run_lines
from pipelines.desk.tickets import withdraw
from pipelines.errors import UsageError
from pipelines.run.runner import Started
from registry.trace import Tracer

STOP_SECONDS = 30.0


class Run(RunView):
    """A federated run, as ``desk.run(...)`` and ``desk.attach(...)`` give it.

    Its properties are read anew each time: a run under way changes.
    """

    def wait(self, *, progress: bool = True) -> Run:
        """Wait until it has ended, and return it. Interrupting this leaves the run going.

        ``progress``: print each round. Raises UsageError when a queued run cannot be started.
        """
        for record in self.follow():
            if progress:
                _say(record)
        return self

    def follow(self) -> Iterator[RoundRecord]:
        """Each finished round as it comes, from the first on, until the run has ended."""
        handle, seen = self._place.started(), 0
        while True:
            access = self._door.open()
            try:
                for record in access.runner.follow(_started(handle), after=seen):
                    seen = record.round
                    yield record
            except BotoCoreError:
                # A local cloud that ended is opened anew, and says then how the run ended.
                if self._door.open() is access:
                    raise
                continue
            return

    def stop(self) -> Run:
        """Stop it in order, or take it out of the queue; returns it when it has stopped.

        Raises:
            UsageError: It has ended, or it does not stop within half a minute.

        """
        handle, access = self._place.now(), self._door.open()
        if not handle.execution:
            withdraw(self._door, handle.ticket)
            return self
        if access.runner.ended(handle.execution):
            if handle.run:
                settle(access.run_clients, handle.run, access.mlflow)
            raise UsageError(f"The run {self.id} is not under way: it is {self.status}.")
        if not access.runner.stop(_started(handle), STOP_SECONDS):
            raise UsageError(f"The run {self.id} is stopping: it has not ended yet.")
        return self

    def logs(self, *, level: str = "INFO", follow: bool = False) -> Text:
        """The log lines of its server and proxies, in the order of time.

        ``level``: only lines of this level and above. ``follow``: print them as they come until the
        run has ended.
        """
        run, access = self._place.run(), self._door.open()

        def read() -> Any:
            deployment, clients = access.cloud.deployment, access.run_clients
            return run_lines(run, deployment, access.client, clients, self._door.home)

        if not follow:
            return Text("\n".join(log_text(line) for line in read() if line.is_at_least(level)))
        for line in follow_lines(read, lambda: self.status in ENDED):
            if line.is_at_least(level):
                print(log_text(line), flush=True)  # noqa: T201  # a notebook shows it
        return Text("")

    def plot(self, metric: str = "") -> Picture:
        """The metrics by round, and where each round's time went. Raises UsageError without any."""
        return plot_rounds(self._place.records(), metric)

    def trace(self) -> Text:
        """Its lineage: executions, rounds, versions, rollouts, decisions."""
        registry = self._door.open().registry
        entries, rollouts = list(registry.audit.entries()), registry.store.rollouts()
        tracer = Tracer(registry.mlflow_client, registry.mlflow, rollouts, entries)
        return Text(trace_text(tracer.trace(self._place.run()), every_device=False))


def attached(door: Door, name: str) -> Run:
    """The run of an id, or of a place in the queue. Raises UsageError when there is none."""
    return Run(door, handle_of(door, name))


def _started(handle: Handle) -> Started:
    return Started(handle.execution, handle.app, handle.devices, 0.0)


def _say(record: RoundRecord) -> None:
    text = f"round {record.round}: {format_metrics(record)} ({record.participants} devices)"
    print(text, flush=True)  # noqa: T201  # a notebook shows it
