"""Cohorts: a run's devices, divided among its proxies.

In federated learning a cohort is the set of clients sampled for one round. Here it is a proxy's
share of the fleet, formed once when the run starts; a round samples its devices from all cohorts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from edge.protocol.names import Name

MAX_COHORTS = 40
"""Proxies of one run at most. The state machine's inline Map starts no more at once, and cohorts
beyond would have none: https://docs.aws.amazon.com/step-functions/latest/dg/state-map-inline.html
"""


class Member(msgspec.Struct, frozen=True):
    """A device in a cohort, and the node id by which Flower knows it."""

    device: Name
    node_id: int
    labels: dict[str, str] = {}
    """The device's labels, as its heartbeat reported them when the run started."""


class Cohort(msgspec.Struct, frozen=True):
    """The devices of one proxy."""

    cohort: Name
    members: list[Member]


def form_cohorts(
    fleet: str,
    devices: Sequence[str],
    devices_per_proxy: int,
    labels: Mapping[str, dict[str, str]] | None = None,
) -> list[Cohort]:
    """Split devices evenly into cohorts of at most ``devices_per_proxy``; 0 means one cohort.

    Cohorts become larger where there would be more than ``MAX_COHORTS``: a proxy's memory does not
    grow with its devices.
    """
    known = labels or {}
    if not devices:
        return []
    # Rounded up; then every count-th device, so that sizes differ by one at most.
    wanted = 1 if devices_per_proxy == 0 else -(-len(devices) // devices_per_proxy)
    count = min(wanted, MAX_COHORTS)
    ordered = sorted(devices)
    return [
        Cohort(
            f"c{index:04d}",
            [
                Member(device, node_id(fleet, device), known.get(device, {}))
                for device in ordered[index::count]
            ],
        )
        for index in range(count)
    ]


def node_id(fleet: str, device: str) -> int:
    """A stable Flower node id: 63 bits, since Flower keeps ids in signed 64-bit integers."""
    return int.from_bytes(hashlib.sha256(f"{fleet}/{device}".encode()).digest()[:8], "big") >> 1


def flower_run_id(run: str) -> int:
    """A stable Flower run id of 63 bits."""
    return node_id("run", run)
