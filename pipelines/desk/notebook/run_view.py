"""What is seen of a run: state, report, tables, model."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fl_runtime.run.records import format_metrics
from pipelines.desk.access import Door
from pipelines.desk.notebook.frames import devices_frame, rounds_frame, table_frames
from pipelines.desk.notebook.model import RegisteredModel
from pipelines.desk.notebook.show import box
from pipelines.desk.notebook.whereabouts import Handle, Whereabouts
from pipelines.run.report import RunReport
from pipelines.run.runner import Started

if TYPE_CHECKING:
    import pandas as pd

ENDED = ("Succeeded", "NotBetter", "Failed", "Stopped")


class RunView:
    """A run to look at. Its properties are read anew each time."""

    def __init__(self, door: Door, handle: Handle) -> None:
        self._door = door
        self._handle = handle
        self._place = Whereabouts(door, handle)

    @property
    def id(self) -> str:
        """The run's id, by which ``attach`` finds it again. Empty while its pipeline has not come
        to it; a queued run has the name of its place in the queue.
        """
        return self._place.now().run or self._handle.ticket

    @property
    def status(self) -> str:
        """``Queued``, ``Starting``, ``Running``, ``Stopping``; at the end ``Succeeded``,
        ``NotBetter``, ``Failed`` or ``Stopped``.
        """
        handle, access = self._place.now(), self._door.open()
        if not handle.execution:
            return "Failed" if self._place.refusal() else "Queued"
        if access.runner.ended(handle.execution):
            return self.report.status
        state = access.run_clients.runs.get(handle.run) if handle.run else None
        # The item may say that the run has ended while the pipeline still registers its model.
        return state.state if state is not None and state.state not in ENDED else "Running"

    @property
    def error(self) -> str:
        """Why it did not succeed, in a sentence; empty while it runs and when it succeeded."""
        if refusal := self._place.refusal():
            return refusal
        return self.report.reason if self.status in ENDED else ""

    @property
    def report(self) -> RunReport:
        """All that is known of it, as ``mledgeops run --json`` prints it."""
        handle = self._place.now()
        if not handle.execution:
            reason = self._place.refusal()
            status = "Failed" if reason else "Queued"
            return RunReport(app=handle.app, devices=handle.devices, status=status, reason=reason)
        runner = self._door.open().runner
        began = time.monotonic() - (time.time() - handle.begun_at)
        report = runner.report(Started(handle.execution, handle.app, handle.devices, began))
        report.run_id = report.run_id or handle.run
        finished = max((record.finished_at for record in report.rounds), default=0.0)
        if report.status in ENDED and finished:
            report.seconds = round(finished - handle.begun_at, 2)
        return report

    @property
    def rounds(self) -> pd.DataFrame:
        """The finished rounds: metrics, participants, failures, seconds, bytes."""
        return rounds_frame(self._place.records())

    @property
    def devices(self) -> pd.DataFrame:
        """Each device: its answers that counted, what was refused and why, seconds, bytes."""
        return devices_frame(self._place.records())

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables that the app made, by name."""
        return table_frames(self.report.tables)

    @property
    def model(self) -> RegisteredModel | None:
        """The registered model; None when there is none (yet)."""
        version = self.report.model_version
        return RegisteredModel(self._door, version) if version else None

    def __repr__(self) -> str:
        return f"<Run {self.id or self._handle.app}: {self.status}>"

    def _repr_html_(self) -> str:
        report, status = self.report, self.status
        judged = "" if report.value is None else f"{report.metric} {report.value:.4g}"
        latest = format_metrics(report.rounds[-1]) if report.rounds and not judged else ""
        fields = {
            "app": report.app,
            "devices": report.devices,
            "finished rounds": len(report.rounds),
            "metric": judged or latest,
            "model": report.model_version,
            "approval": report.approval,
            "seconds": report.seconds,
        }
        title = report.run_id or self.id or report.app
        return box(title, status, fields, report.reason if status in ENDED else "")
