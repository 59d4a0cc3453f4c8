"""Starts a run that goes on without this process."""

from __future__ import annotations

import time

from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import spec_key
from pipelines.desk.access import Access, Door
from pipelines.desk.notebook.run import Run
from pipelines.desk.notebook.whereabouts import Handle
from pipelines.desk.tickets import tickets_of
from pipelines.desk.turns import take_turn, turn
from pipelines.run.plan import RunPlan
from pipelines.run.publication import publish

START_SECONDS = 20.0
"""How long a run may take to get its id: its pipeline's first step."""


def start(door: Door, wanted: RunPlan, *, queue: bool, how: str) -> Run:
    """Start a run, and return it once it has its id; or queue it, and return it at once.

    Args:
        door: To its cloud.
        wanted: The run.
        queue: On a local cloud: wait for the fleet's turn.
        how: How the user queues a run, for the message of a refusal.

    Raises:
        UsageError: A run is under way on the fleet; or it is to be queued on AWS.
        LocalCloudError: A run is being started on the fleet.

    """
    access = door.stay()
    if queue:
        return _queued(door, access, wanted)
    if door.home is None:
        return _begun(door, access, wanted)
    with turn(door.home / "turns" / wanted.fleet, wanted.fleet, how):
        take_turn(access.run_clients, wanted.fleet, how)
        return _begun(door, access, wanted)


def _begun(door: Door, access: Access, wanted: RunPlan) -> Run:
    started = access.runner.start(wanted)
    handle = Handle(
        app=started.app, devices=started.devices, begun_at=time.time(), execution=started.arn
    )
    run, deadline = Run(door, handle), time.monotonic() + START_SECONDS
    while not _is_known(access, run.id) and time.monotonic() < deadline:
        if access.runner.ended(started.arn):
            break
        time.sleep(0.1)
    return run


def _is_known(access: Access, run: str) -> bool:
    """Whether another process can take a run up by its id, which is there before what it says."""
    if not run:
        return False
    try:
        access.run_clients.objects.get(spec_key(run))
    except ObjectMissing:
        return False
    return True


def _queued(door: Door, access: Access, wanted: RunPlan) -> Run:
    tickets = tickets_of(door)
    name = publish(wanted, access.cloud.deployment, access.run_clients)
    ticket = tickets.add(name, wanted.parameters(), wanted.fleet)
    handle = Handle(
        app=wanted.app.name, devices=wanted.devices, begun_at=ticket.at, ticket=ticket.name
    )
    return Run(door, handle)
