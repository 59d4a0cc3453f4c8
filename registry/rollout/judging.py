"""Counting devices' answers, and the verdict on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from registry.rollout.model import FAILED, SUCCEEDED, WAITING, Answer, DeviceState, Rollout

Verdict = Literal["wait", "proceed", "roll back"]


def with_answers(rollout: Rollout, answers: Mapping[str, Answer]) -> Rollout:
    """The rollout with its counts brought up to date."""
    return msgspec.structs.replace(
        rollout,
        failures={d: a.reason or a.status for d, a in answers.items() if a.status in FAILED},
        switched=sum(answer.status == SUCCEEDED for answer in answers.values()),
        waiting=sum(answer.status in WAITING for answer in answers.values()),
    )


def verdict(rollout: Rollout, now: float) -> Verdict:
    """Over all waves so far: enough devices have switched, too many have failed, or neither yet."""
    policy, failed = rollout.policy, len(rollout.failures)
    # While answers are missing, failures count against all devices asked: good answers to come may
    # outweigh them.
    if failed > policy.abort * rollout.answered and (
        failed > policy.abort * (rollout.answered + rollout.waiting) or not rollout.waiting
    ):
        return "roll back"
    timed_out = now - rollout.waves[-1].started_at >= policy.wave_seconds
    if rollout.waiting and not timed_out:
        return "wait"
    if not rollout.answered:
        return "roll back" if rollout.state == "Canary" else "proceed"
    return "proceed" if rollout.switched >= policy.success * rollout.answered else "roll back"


def failure_text(rollout: Rollout) -> str:
    """Why a rollout rolls back, with one device's reason as an example."""
    if not rollout.failures:
        seconds = rollout.policy.wave_seconds
        return f"no device of the canary answered within {seconds:.0f} s"
    device, reason = min(rollout.failures.items())
    return (
        f"{len(rollout.failures)} of {rollout.answered} devices did not take it; {device}: {reason}"
    )


def lost_canary(
    rollout: Rollout,
    switched: list[str],
    devices: Mapping[str, DeviceState],
    *,
    soak_over: bool,
) -> str:
    """Why the canary does not survive its soak time; empty while it does.

    A heartbeat may be older than the switch. At the end of the soak none is, and only then the
    model that it names counts.
    """
    if not rollout.policy.soak_seconds:
        return ""
    lost = []
    for name in switched:
        device = devices.get(name, DeviceState("", online=False))
        lost_model = soak_over and device.model != rollout.candidate.model_version
        if not device.online or lost_model:
            lost.append(name)
    if len(lost) <= rollout.policy.abort * len(switched):
        return ""
    return (
        f"{len(lost)} of {len(switched)} canary devices went away or lost the model "
        "after they had switched"
    )
