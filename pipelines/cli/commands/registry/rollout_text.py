"""A rollout as JSON and as text."""

from __future__ import annotations

from typing import Any

from registry.rollout.model import Rollout

FAILURES_SHOWN = 10
DID_NOT_STAY = ("TurningBack", "RolledBack")
"""States of a rollout whose model did not stay on the devices."""


def rollout_row(rollout: Rollout) -> dict[str, Any]:
    """A rollout as JSON shows it."""
    return {
        "fleet": rollout.fleet,
        "number": rollout.number,
        "model_version": rollout.model_version,
        "state": rollout.state,
        "by": rollout.by,
        "reason": rollout.reason,
        "why": rollout.why,
        "waves": [len(wave.devices) for wave in rollout.waves],
        "switched": rollout.switched,
        "waiting": rollout.waiting,
        "failures": rollout.failures,
        "jobs": [job for wave in rollout.waves for job in wave.jobs],
        "started_at": rollout.started_at,
        "ended_at": rollout.ended_at,
    }


def rollout_text(rollout: Rollout) -> str:
    """A rollout in two lines, its first failures below them."""
    waves = " + ".join(str(len(wave.devices)) for wave in rollout.waves) or "no"
    took = f" in {rollout.ended_at - rollout.started_at:.0f} s" if rollout.ended_at else ""
    failed = sorted(rollout.failures.items())
    counts = (
        f"{rollout.switched} switched, {len(failed)} refused, {rollout.waiting} have not answered"
    )
    return "\n".join(
        [
            f"rollout {rollout.number} of {rollout.model_version} to fleet {rollout.fleet}: "
            f"{rollout.state}{took}",
            f"  asked {waves} devices: {counts}",
            *([f"  {rollout.why}"] if rollout.why else []),
            *(f"    {device}: {reason}" for device, reason in failed[:FAILURES_SHOWN]),
        ]
    )
