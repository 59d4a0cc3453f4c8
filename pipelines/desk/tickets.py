"""The queue of a local cloud, as its users see it. On AWS there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.desk.access import Door
from pipelines.errors import UsageError

if TYPE_CHECKING:
    from pipelines.local.hosting.tickets import Ticket, Tickets

WITHDRAWN = "It was taken out of the queue."
PREFIX = "queued-"


def tickets_of(door: Door) -> Tickets:
    """The queue.

    Raises:
        UsageError: The cloud has none.

    """
    if door.home is None:
        raise UsageError("Runs are queued on a local cloud only.")
    from pipelines.local.hosting.tickets import Tickets

    return Tickets(door.home / "queue")


def ticket_of(door: Door, name: str) -> Ticket | None:
    """A place in the queue; None for a name that is none."""
    return tickets_of(door).get(name) if name.startswith(PREFIX) else None


def withdraw(door: Door, name: str) -> None:
    """Take a run out of the queue.

    Raises:
        UsageError: It has started meanwhile.

    """
    if tickets_of(door).withdraw(name, WITHDRAWN).execution:
        raise UsageError("The run has just begun: stop it once more.")
