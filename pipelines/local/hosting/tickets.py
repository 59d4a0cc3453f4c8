"""Runs that wait for their fleet: one file each, started in their order by the cloud's process."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Container
from pathlib import Path

import msgspec

from edge.files import write_atomically
from edge.typed import from_json
from pipelines.errors import UsageError
from pipelines.run.option import ParameterValue

PREFIX = "queued-"


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """A run that waits, as its file has it."""

    name: str
    """``queued-`` and some letters."""
    pipeline: str
    parameters: dict[str, ParameterValue]
    fleet: str
    at: float
    """Seconds since the epoch."""
    execution: str = ""
    """ARN of the pipeline execution, once it has started."""
    reason: str = ""
    """Why it will not start."""


class Tickets:
    """A folder with one file for each ticket. They stay, so that a run is found by its ticket."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, pipeline: str, parameters: dict[str, ParameterValue], fleet: str) -> Ticket:
        """Queue a run."""
        ticket = Ticket(
            name=f"{PREFIX}{secrets.token_hex(5)}",
            pipeline=pipeline,
            parameters=parameters,
            fleet=fleet,
            at=time.time(),
        )
        self._write(ticket)
        return ticket

    def get(self, name: str) -> Ticket:
        """A ticket as it is now.

        Raises:
            UsageError: There is none of this name.

        """
        try:
            return from_json(self._file(name).read_bytes(), type=Ticket)
        except (OSError, msgspec.DecodeError) as error:
            raise UsageError(f"No run waits as {name!r}.") from error

    def withdraw(self, name: str, reason: str) -> Ticket:
        """Take a run that has not started out of the queue; returns its ticket as it is then."""
        ticket = self.get(name)
        return ticket if ticket.execution else self._settle(ticket, reason=reason)

    def waiting(self) -> list[Ticket]:
        """The tickets of runs that have not started, oldest first. Damaged ones are left out."""
        found = []
        for file in self._folder.glob(f"{PREFIX}*.json"):
            try:
                found.append(self.get(file.stem))
            except UsageError:
                continue
        going = (ticket for ticket in found if not (ticket.execution or ticket.reason))
        return sorted(going, key=lambda ticket: ticket.at)

    def call(self, busy: Container[str], start: Callable[[Ticket], str]) -> Ticket | None:
        """Start the first run whose fleet is not busy; None when there is none.

        Args:
            busy: Fleets with a run under way.
            start: Starts a ticket's pipeline and returns the execution's ARN. Raises UsageError.

        """
        for ticket in self.waiting():
            if ticket.fleet not in busy:
                try:
                    return self._settle(ticket, execution=start(ticket))
                except UsageError as error:
                    return self._settle(ticket, reason=str(error))
        return None

    def _settle(self, ticket: Ticket, **changes: str) -> Ticket:
        settled = msgspec.structs.replace(ticket, **changes)
        self._write(settled)
        return settled

    def _write(self, ticket: Ticket) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._file(ticket.name), msgspec.json.encode(ticket), durable=False)

    def _file(self, name: str) -> Path:
        return self._folder / f"{Path(name).name}.json"
