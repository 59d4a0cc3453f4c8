"""Drift of a fleet's inputs by feature, for all devices and for each group of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fl_runtime.run.devices import DeviceStatus
from registry.evidence.drift import drift_of, servings

EVERYONE = "all"


def drift_rows(devices: Iterable[DeviceStatus]) -> list[dict[str, Any]]:
    """One row for each fleet, model, group and feature, the largest shift of a group first.

    A group is the devices with one label, as ``region=north``. Shift and spread are medians over
    the group's devices that have predicted enough: the difference of the means in standard
    deviations, and the ratio of the standard deviations, latest predictions to first.
    """
    groups: dict[tuple[str, str, str], list[DeviceStatus]] = {}
    for status in devices:
        beat = status.heartbeat
        if beat is None or beat.serving is None:
            continue
        labels = [f"{key}={value}" for key, value in sorted(beat.labels.items())]
        for group in (EVERYONE, *labels):
            groups.setdefault((status.fleet, beat.model, group), []).append(status)
    rows = []
    for (fleet, model, group), members in sorted(groups.items()):
        drift = drift_of(servings(members))
        rows += [
            {
                "fleet": fleet,
                "model": model,
                "group": group,
                "devices": drift.devices,
                "feature": item.feature,
                "shift": round(item.shift, 2),
                "spread": round(item.spread, 2),
            }
            for item in drift.features
        ]
    return rows
