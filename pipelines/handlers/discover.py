"""Heartbeats -> cohorts: which devices take part in a run, or how long to wait for more."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from fl_runtime.run.aws import fresh_seconds, setting
from fl_runtime.run.cohorts import form_cohorts
from fl_runtime.run.devices import DeviceTable
from fl_runtime.run.eligibility import eligible
from fl_runtime.run.keys import champion_key, cohorts_key, spec_key
from fl_runtime.run.spec import Champion, RunSpec, decode_spec
from pipelines.handlers.aws_clients import services
from pipelines.run.names import package_group
from registry.rollout.aws import DynamoStore
from registry.rollout.model import Candidate

WAITS_PER_RUN = 2000
"""Step Functions keeps 25,000 history events: the wait grows so that this many are enough."""


class Discovery(msgspec.Struct, frozen=True, kw_only=True):
    """What the state machine decides on."""

    enough: bool
    expired: bool
    count: int
    cohorts: list[str]
    wait_seconds: int
    reason: str


def chosen_of(spec: RunSpec, devices: Iterable[str]) -> list[str]:
    """The devices of the run: all that are eligible, or as many by lot as it may have (the same lot
    for the same seed).
    """
    names = sorted(devices)
    if not spec.max_devices or len(names) <= spec.max_devices:
        return names
    return sorted(random.Random(spec.seed).sample(names, spec.max_devices))  # noqa: S311  # a fair choice, no secret


def discover(spec: RunSpec, devices: Iterable[str], now: float) -> Discovery:
    """Decide whether to start, to wait, or to give up."""
    age = now - spec.created_at
    chosen = chosen_of(spec, devices)
    enough = len(chosen) >= spec.min_devices
    wait = max(1.0, min(age / 10, 60.0), spec.deadline_seconds / WAITS_PER_RUN)
    return Discovery(
        enough=enough,
        expired=not enough and age >= spec.deadline_seconds,
        count=len(chosen),
        cohorts=[
            cohort.cohort for cohort in form_cohorts(spec.fleet, chosen, spec.devices_per_proxy)
        ]
        if enough and spec.devices_per_proxy
        else [],
        wait_seconds=int(wait),
        reason=f"{len(chosen)} of the {spec.min_devices} devices needed were eligible in fleet {spec.fleet} after {age:.0f} s"
        + (
            f" ({', '.join(f'{key}={value}' for key, value in spec.require.items())} required)."
            if spec.require
            else "."
        ),
    )


def champion_of(spec: RunSpec, runs: Candidate | None) -> Champion | None:
    """What the fleet runs, when it is a version of the model that this run makes."""
    if runs is None or runs.model_version.partition("/")[0] != package_group(spec.app_name):
        return None
    return Champion(
        model_version=runs.model_version, digest=runs.digest, app=runs.app, key=runs.key
    )


def handler(request: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point. The cohorts themselves go to S3: state is limited to 256 KB."""
    aws, now = services(), time.time()
    spec = decode_spec(aws.objects.get(spec_key(request["run"])))
    devices = DeviceTable(aws.dynamodb, aws.names.devices_table).fleet(spec.fleet)
    beats = eligible(devices, spec, now, fresh_seconds())
    found = discover(spec, beats, now)
    if found.enough:
        labels = {device: beat.labels for device, beat in beats.items()}
        cohorts = form_cohorts(spec.fleet, chosen_of(spec, beats), spec.devices_per_proxy, labels)
        aws.objects.put(cohorts_key(spec.run), msgspec.json.encode(cohorts))
        store = DynamoStore(aws.dynamodb, setting("MLEDGEOPS_ROLLOUTS_TABLE"))
        aws.objects.put(
            champion_key(spec.run),
            msgspec.json.encode(champion_of(spec, store.current(spec.fleet).candidate)),
        )
    return msgspec.to_builtins(found)  # type: ignore[no-any-return]  # a dict, from a struct
