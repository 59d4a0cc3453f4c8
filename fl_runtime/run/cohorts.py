"""Cohorts: the fleet's devices of one run, divided among its proxies.

In federated learning a cohort is the set of clients sampled for one round. Here it is something
else: a proxy's share of the fleet, formed once for each run. A round samples its devices from all
cohorts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from edge.protocol.messages import Name


class Member(msgspec.Struct, frozen=True):
    """A device in a cohort, and the node id by which Flower knows it."""

    device: Name
    node_id: int
    labels: dict[str, str] = {}


class Cohort(msgspec.Struct, frozen=True):
    """The devices that one proxy speaks to."""

    cohort: Name
    members: list[Member]


def node_id(fleet: str, device: str) -> int:
    """A stable 63-bit Flower node id for a device (Flower keeps ids in signed 64 bits)."""
    return int.from_bytes(hashlib.sha256(f"{fleet}/{device}".encode()).digest()[:8], "big") >> 1


def flower_run_id(run: str) -> int:
    """A stable 63-bit Flower run id."""
    return node_id("run", run)


def form_cohorts(
    fleet: str,
    devices: list[str],
    devices_per_proxy: int,
    labels: Mapping[str, dict[str, str]] | None = None,
) -> list[Cohort]:
    """Split devices into cohorts of at most ``devices_per_proxy``, evenly; 0 means one cohort."""
    known = labels or {}
    if not devices:
        return []
    count = 1 if devices_per_proxy == 0 else -(-len(devices) // devices_per_proxy)
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
