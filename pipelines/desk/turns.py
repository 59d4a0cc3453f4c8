"""Whose turn it is on a fleet: two runs at once on the same local devices would share each
device's time, and the second would count as slow devices of the first.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from fl_runtime.run.errors import ObjectMissing, RunFailed
from fl_runtime.run.keys import spec_key
from fl_runtime.run.spec import decode_spec
from pipelines.errors import UsageError
from pipelines.run.clients import RunClients
from pipelines.run.executions import Executions

POLL_SECONDS = 1.0
BUSY = (
    "A run is under way on fleet {fleet}{name}: wait for it, stop it, queue this one "
    "({how}), or give another fleet."
)


def run_on(clients: RunClients, fleet: str) -> str:
    """The run that is under way on a fleet; empty when there is none."""
    executions = Executions(clients.sagemaker)
    for state in clients.runs.under_way():
        try:
            spec = decode_spec(clients.objects.get(spec_key(state.run)))
        except (ObjectMissing, RunFailed):
            continue
        # A run that a cloud left behind has a pipeline that has ended.
        if spec.fleet == fleet and not executions.ended(state.pipeline_execution_arn):
            return state.run
    return ""


def take_turn(clients: RunClients, fleet: str, how: str, *, wait: bool = False) -> None:
    """Check that no run is under way on a fleet, or wait until none is.

    Raises:
        UsageError: One is, and ``wait`` is false.

    """
    while busy := run_on(clients, fleet):
        if not wait:
            raise UsageError(BUSY.format(fleet=fleet, name=f" ({busy})", how=how))
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def turn(lock: Path, fleet: str, how: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a fleet's turn (``Home.fleet_turn``) while the block lasts.

    Args:
        lock: The turn's file.
        fleet: For the message.
        how: How the user queues a run, for the message.
        wait: Wait for whoever holds it.

    Raises:
        LocalCloudError: Another process holds it.

    """
    from pipelines.local.home import locked

    refusal = "" if wait else BUSY.format(fleet=fleet, name="", how=how)
    with locked(lock, refusal):
        yield
