"""Discovers the devices of a run: forms cohorts of the eligible ones, or says how long to wait."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Mapping, Set
from types import MappingProxyType
from typing import Any

import msgspec

from edge.logs import event
from edge.protocol.messages import Heartbeat
from fl_runtime.run.cohorts import form_cohorts
from fl_runtime.run.eligibility import eligible, left_out
from fl_runtime.run.keys import champion_key, cohorts_key, spec_key
from fl_runtime.run.spec import Champion, RunSpec, decode_spec
from pipelines.devices.tokens import things_of
from pipelines.handlers.aws_clients import iot, services
from pipelines.run.names import package_group
from registry.rollout.model import Candidate

logger = logging.getLogger(__name__)

WAITS_PER_RUN = 2000
"""Waits of one run at most. Step Functions keeps 25,000 history events, and each wait takes ten:
https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
"""


class Discovery(msgspec.Struct, frozen=True, kw_only=True):
    """What the state machine decides on."""

    enough: bool
    expired: bool
    """Whether the run gives up."""
    count: int
    cohorts: list[str]
    """One proxy each. Empty when the server serves the devices itself."""
    wait_seconds: int
    reason: str
    """Why the run fails, if it expired."""


def chosen_of(spec: RunSpec, devices: Iterable[str]) -> list[str]:
    """The devices of the run: all of them, or a random sample of ``max_devices``, the same for the
    same seed.
    """
    names = sorted(devices)
    if not spec.max_devices or len(names) <= spec.max_devices:
        return names
    return sorted(random.Random(spec.seed).sample(names, spec.max_devices))  # noqa: S311  # no secret


def members(beats: Mapping[str, Heartbeat], things: Set[str]) -> dict[str, Heartbeat]:
    """The devices that are of this fleet by their things, too: a policy may have let one publish
    heartbeats as a device of another fleet.
    """
    strangers = sorted(beats.keys() - things)
    if strangers:
        event(
            logger,
            "devices-of-another-fleet",
            logging.WARNING,
            devices=strangers[:10],
            count=len(strangers),
        )
    return {device: beat for device, beat in beats.items() if device in things}


def discover(
    spec: RunSpec,
    devices: Iterable[str],
    now: float,
    unfit: Mapping[str, str] = MappingProxyType({}),
) -> Discovery:
    """Decide whether to start, to wait, or to give up.

    Args:
        spec: The run.
        devices: Those that are eligible.
        now: Unix seconds.
        unfit: Devices that are online and cannot take part, with the reason.

    """
    age = now - spec.created_at
    chosen = chosen_of(spec, devices)
    enough = len(chosen) >= spec.min_devices
    wait = max(1.0, min(age / 10, 60.0), spec.deadline_seconds / WAITS_PER_RUN)
    cohorts = form_cohorts(spec.fleet, chosen, spec.devices_per_proxy)
    return Discovery(
        enough=enough,
        expired=not enough and age >= spec.deadline_seconds,
        count=len(chosen),
        cohorts=[c.cohort for c in cohorts] if enough and spec.devices_per_proxy else [],
        wait_seconds=int(wait),
        reason=_shortage(spec, len(chosen), age, unfit),
    )


def _shortage(spec: RunSpec, count: int, age: float, unfit: Mapping[str, str]) -> str:
    required = ", ".join(f"{key}={value}" for key, value in spec.require.items())
    reason = (
        f"{count} of the {spec.min_devices} devices needed were eligible in fleet {spec.fleet} "
        f"after {age:.0f} s" + (f" ({required} required)." if required else ".")
    )
    if unfit:
        first, why = next(iter(unfit.items()))
        reason += f" {len(unfit)} online could not take part; {first}: {why}."
    return reason


def champion_of(spec: RunSpec, current: Candidate | None) -> Champion | None:
    """The model that the fleet uses, if it is a version of the model that this run makes."""
    if current is None or current.model_version.partition("/")[0] != package_group(spec.app_name):
        return None
    return Champion(
        model_version=current.model_version,
        digest=current.digest,
        app=current.app,
        key=current.key,
    )


def handler(request: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point of the state machine's first step.

    The cohorts' members go to S3: a state machine's state is limited to 256 KB.
    """
    aws, now = services(), time.time()
    spec = decode_spec(aws.objects.get(spec_key(request["run"])))
    devices = list(aws.devices.fleet(spec.fleet))
    beats = members(eligible(devices, spec, now, aws.fresh_seconds), things_of(iot(), spec.fleet))
    found = discover(spec, beats, now, left_out(devices, spec.app, now, aws.fresh_seconds))
    if found.enough:
        labels = {device: beat.labels for device, beat in beats.items()}
        cohorts = form_cohorts(spec.fleet, chosen_of(spec, beats), spec.devices_per_proxy, labels)
        champion = champion_of(spec, aws.rollouts.current(spec.fleet).candidate)
        aws.objects.put(cohorts_key(spec.run), msgspec.json.encode(cohorts))
        aws.objects.put(champion_key(spec.run), msgspec.json.encode(champion))
    return msgspec.to_builtins(found)  # type: ignore[no-any-return]  # a dict, from a struct
