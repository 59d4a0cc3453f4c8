"""Where a run is: in the queue, in its pipeline, or known by its id; and what it has left there."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from fl_runtime.run.records import RoundRecord
from pipelines.desk.access import Door
from pipelines.desk.tickets import ticket_of
from pipelines.errors import UsageError
from pipelines.run.report import finished_rounds
from pipelines.run.resume import spec_of_run

POLL_SECONDS = 0.4


@dataclass(frozen=True, kw_only=True)
class Handle:
    """What leads to a run."""

    app: str
    devices: int
    begun_at: float
    """Seconds since the epoch."""
    execution: str = ""
    """ARN of the pipeline execution; empty while the run waits for its fleet."""
    run: str = ""
    """The run's id; empty until its pipeline has come to it."""
    ticket: str = ""
    """The name by which a queued run is found."""


class Whereabouts:
    """Follows a run by what leads to it."""

    def __init__(self, door: Door, handle: Handle) -> None:
        self.door = door
        self._handle = handle

    def now(self) -> Handle:
        """The handle with what has become known since."""
        handle = self._handle
        if not handle.execution:
            ticket = ticket_of(self.door, handle.ticket)
            handle = replace(handle, execution=ticket.execution if ticket is not None else "")
        if handle.execution and not handle.run:
            handle = replace(handle, run=self.door.open().runner.run_of(handle.execution))
        self._handle = handle
        return handle

    def started(self) -> Handle:
        """Wait until a queued run has its turn. Raises UsageError when it will not start."""
        while not (handle := self.now()).execution:
            if refusal := self.refusal():
                raise UsageError(refusal)
            time.sleep(POLL_SECONDS)
        return handle

    def run(self) -> str:
        """The run's id. Raises UsageError while it has none."""
        run = self.now().run
        if not run:
            raise UsageError("The run has not begun yet: its pipeline has not come to it.")
        return run

    def refusal(self) -> str:
        """Why a queued run will not start; empty for all others."""
        ticket = ticket_of(self.door, self._handle.ticket)
        return ticket.reason if ticket is not None else ""

    def records(self) -> list[RoundRecord]:
        """The records of its finished rounds."""
        run = self.now().run
        return list(finished_rounds(self.door.open().objects, run)) if run else []


def handle_of(door: Door, name: str) -> Handle:
    """What leads to the run of an id, or of a place in the queue. Raises UsageError."""
    ticket = ticket_of(door, name)
    if ticket is not None:
        devices, app = int(ticket.parameters["MinDevices"]), str(ticket.parameters["AppName"])
        return Handle(app=app, devices=devices, begun_at=ticket.at, ticket=name)
    spec = spec_of_run(door.open().run_clients, name)
    return Handle(
        app=spec.app_name,
        devices=spec.max_devices or spec.min_devices,
        begun_at=spec.created_at,
        execution=spec.pipeline_execution_arn,
        run=name,
    )
