"""Heartbeats -> cohorts: which devices take part in a run, or how long to wait for more."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import Heartbeat, decode
from fl_runtime.run_spec import RunSpec, cohorts_key, decode_spec, form_cohorts, spec_key
from pipelines.handlers.wiring import Services, services

FRESH_SECONDS = 90.0
"""A device that has not been heard of for so long is not asked (three heartbeats of the default 30 s)."""
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


def eligible(rows: Iterator[Mapping[str, Any]], spec: RunSpec, now: float, fresh_seconds: float) -> list[str]:
    """Devices heard of lately, not offline, that have the run's app. A malformed heartbeat counts as none."""
    devices = []
    for row in rows:
        try:
            beat = decode(row["body"]["S"], Heartbeat)
        except (ProtocolError, KeyError):
            continue
        if now - float(row["last_seen"]["N"]) / 1000 <= fresh_seconds and beat.state != "offline" and spec.app in beat.apps:
            devices.append(row["device"]["S"])
    return sorted(devices)


def discover(spec: RunSpec, devices: list[str], now: float) -> Discovery:
    """Decide whether to start, to wait, or to give up."""
    age = now - spec.created_at
    chosen = devices[: spec.max_devices] if spec.max_devices else devices
    enough = len(chosen) >= spec.min_devices
    wait = max(1.0, min(age / 10, 60.0), spec.deadline_seconds / WAITS_PER_RUN)
    return Discovery(
        enough=enough, expired=not enough and age >= spec.deadline_seconds, count=len(chosen),
        cohorts=[cohort.cohort for cohort in form_cohorts(spec.fleet, chosen, spec.devices_per_proxy)] if enough and spec.devices_per_proxy else [],
        wait_seconds=int(wait),
        reason=f"{len(chosen)} of the {spec.min_devices} devices needed were eligible in fleet {spec.fleet} after {age:.0f} s.",
    )  # fmt: skip


def rows_of(fleet: str, aws: Services) -> Iterator[Mapping[str, Any]]:
    """The fleet's rows in the devices table."""
    pages = aws.dynamodb.get_paginator("query").paginate(
        TableName=aws.names.devices_table, KeyConditionExpression="fleet = :fleet", ExpressionAttributeValues={":fleet": {"S": fleet}}
    )
    for page in pages:
        yield from page["Items"]


def handler(request: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point. The cohorts themselves go to S3: state is limited to 256 KB."""
    aws, now = services(), time.time()
    spec = decode_spec(aws.objects.get(spec_key(request["run"])))
    devices = eligible(rows_of(spec.fleet, aws), spec, now, float(os.environ.get("MLEDGEOPS_FRESH_SECONDS", FRESH_SECONDS)))
    found = discover(spec, devices, now)
    if found.enough:
        chosen = devices[: spec.max_devices] if spec.max_devices else devices
        aws.objects.put(cohorts_key(spec.run), msgspec.json.encode(form_cohorts(spec.fleet, chosen, spec.devices_per_proxy)))
    return msgspec.to_builtins(found)  # type: ignore[no-any-return]  # a dict, from a struct
