"""One step of a rollout, for the state machine, which calls it again and again until it is over;
and, for a schedule, the update of stale devices.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from edge.logs import event
from pipelines.handlers.aws_clients import registry, set_up_logs
from registry.rollout.model import TERMINAL_STATES

logger = logging.getLogger(__name__)

STEPS_AT_ONCE = 8
WAIT_SECONDS = (1, 120)
"""Between two looks: short at first, a fiftieth of the rollout's age later, so that the history of
25,000 events suffices.
"""


def handler(request: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point: the state machine names a rollout by its fleet and number, the schedule
    names nothing.
    """
    set_up_logs()
    both = registry()
    if "fleet" not in request:
        return {
            "jobs": [
                job
                for current in both.store.fleets()
                for job in both.stale_devices.update(current.fleet)
            ]
        }
    conductor, fleet, number = both.conductor, request["fleet"], request["number"]
    rollout = conductor.advance(fleet, number, time.time())
    # several steps may be due; what waits for devices waits in the state machine
    for _ in range(STEPS_AT_ONCE):
        before, rollout = rollout, conductor.advance(fleet, number, time.time())
        if (before.state, len(before.waves)) == (rollout.state, len(rollout.waves)):
            break
    over = rollout.state in TERMINAL_STATES
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
    if over:
        both.rollouts.begin_next(rollout.fleet)
    wait = min(max(WAIT_SECONDS[0], (time.time() - rollout.started_at) / 50), WAIT_SECONDS[1])
    return {"over": over, "state": rollout.state, "wait_seconds": int(wait)}
