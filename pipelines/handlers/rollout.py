"""Advances a staged rollout by the steps that are due; on schedule, updates stale devices.

The rollout's state machine calls it repeatedly, with a wait between, until the rollout is over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from edge.logs import event
from pipelines.handlers.aws_clients import registry
from registry.rollout.conductor import Conductor
from registry.rollout.model import TERMINAL_STATES, Rollout

logger = logging.getLogger(__name__)

STEPS_AT_ONCE = 8
"""Steps that one call takes at most."""
WAIT_SECONDS = (1, 120)
"""Shortest and longest wait between two calls. It grows with the rollout's age, by a fiftieth, so
that a state machine's 25,000 history events suffice.
"""


def advance(
    conductor: Conductor, fleet: str, number: int, clock: Callable[[], float] = time.time
) -> Rollout:
    """Take the steps that are due, until one changes nothing and the rollout waits for devices."""
    rollout = conductor.advance(fleet, number, clock())
    for _ in range(STEPS_AT_ONCE):
        before, rollout = rollout, conductor.advance(fleet, number, clock())
        if (before.state, len(before.waves)) == (rollout.state, len(rollout.waves)):
            break
    return rollout


def wait_of(rollout: Rollout, now: float) -> int:
    """Seconds until the next call."""
    shortest, longest = WAIT_SECONDS
    return int(min(max(shortest, (now - rollout.started_at) / 50), longest))


def handler(request: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point. The state machine names a rollout by fleet and number; the schedule names
    none.
    """
    both = registry()
    if "fleet" not in request:
        fleets = [record.fleet for record in both.store.fleets()]
        for fleet in fleets:
            both.stale_devices.withdraw_expired(fleet)
        return {"jobs": [job for fleet in fleets for job in both.stale_devices.update(fleet)]}
    rollout = advance(both.conductor, request["fleet"], request["number"])
    _log(rollout)
    over = rollout.state in TERMINAL_STATES
    if over:
        both.rollouts.begin_next(rollout.fleet)
    return {"over": over, "state": rollout.state, "wait_seconds": wait_of(rollout, time.time())}


def _log(rollout: Rollout) -> None:
    event(
        logger,
        "rollout",
        fleet=rollout.fleet,
        number=rollout.number,
        state=rollout.state,
        version=rollout.model_version,
        switched=rollout.switched,
        failures=len(rollout.failures),
        waiting=rollout.waiting,
        why=rollout.why,
    )
