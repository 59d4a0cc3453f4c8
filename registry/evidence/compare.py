"""Candidate against champion, on the devices' own data."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

from edge.protocol.messages import Goal
from fl_runtime.run.records import Comparison, DeviceComparison
from fl_runtime.run.robust import DISPROPORTION, LARGEST, SKIP_BEYOND, capped_mean, deviations
from registry.evidence.model import (
    EXAMPLES,
    WORST,
    ComparisonSummary,
    DeviceEvaluation,
    GroupEvaluation,
    as_number,
    weighted_mean,
    worse_by,
)

_GROUPS_KEPT = 500
_OUTLIERS_KEPT = 50


def compare(comparison: Comparison, metric: str, goal: Goal) -> ComparisonSummary:
    """Summarise a comparison by device, by group and over all.

    If any device evaluated both models, only those that did count.
    """
    champion = comparison.champion
    told = [row for row in comparison.devices if _tells(row.candidate, metric)]
    both = [row for row in told if _tells(row.champion, metric)]
    compared = champion is not None and bool(both)
    rows = both if compared else told
    devices = [_device(row, metric, goal, compared=bool(both)) for row in rows]
    everyone = _group("", "", devices, goal) if devices else None
    robust, robust_champion = _robust_means(devices)
    return ComparisonSummary(
        champion=champion.model_version if champion else "",
        champion_digest=champion.digest if champion else "",
        reason=comparison.reason if compared else _reason(comparison, told, metric),
        round=comparison.round,
        devices=len(devices),
        better_on=sum(device.worse_by < 0 for device in devices),
        candidate=everyone.candidate if everyone else None,
        champion_value=everyone.champion if everyone else None,
        candidate_robust=robust,
        champion_robust=robust_champion,
        worse_by=worse_by(robust, robust_champion, goal)
        if robust is not None and robust_champion is not None
        else 0.0,
        outliers=_outliers(devices)[:_OUTLIERS_KEPT],
        worst=_worst_first(devices, goal)[:WORST],
        distribution=sorted(device.candidate for device in devices),
        groups=_groups(rows, devices, goal)[:_GROUPS_KEPT],
    )


def _tells(metrics: Mapping[str, Any], metric: str) -> bool:
    """Whether a device reports the metric, and a number that can be added up."""
    value = as_number(metrics.get(metric))
    return value is not None and abs(value) <= LARGEST


def _robust_means(devices: list[DeviceEvaluation]) -> tuple[float | None, float | None]:
    """(candidate, champion): the skipped means, over devices that are plausible for both."""
    kept = _within(devices, SKIP_BEYOND)
    if not kept:
        return None, None
    weights = [device.examples for device in kept]
    champion = [device.champion for device in kept if device.champion is not None]
    return (
        capped_mean([device.candidate for device in kept], weights),
        capped_mean(champion, weights) if len(champion) == len(kept) else None,
    )


def _outliers(devices: list[DeviceEvaluation]) -> list[str]:
    """Devices whose metric is out of all proportion, by name."""
    plausible = {device.device for device in _within(devices, DISPROPORTION)}
    return sorted(device.device for device in devices if device.device not in plausible)


def _within(devices: list[DeviceEvaluation], limit: float) -> list[DeviceEvaluation]:
    """The devices whose metrics deviate by at most ``limit``, for both models."""
    candidate = deviations([device.candidate for device in devices])
    compared = [device.champion for device in devices if device.champion is not None]
    champion = deviations(compared) if len(compared) == len(devices) else candidate
    pairs = zip(devices, candidate, champion, strict=True)
    return [device for device, mine, theirs in pairs if max(mine, theirs) <= limit]


def _reason(comparison: Comparison, told: list[DeviceComparison], metric: str) -> str:
    """Why there is no comparison."""
    if comparison.champion is None or comparison.reason:
        return comparison.reason
    reasons = collections.Counter(row.reason for row in told if row.reason)
    commonest = reasons.most_common(1)[0][0] if reasons else f"none reports {metric}"
    return f"no device evaluated both ({commonest})"


def _device(row: DeviceComparison, metric: str, goal: Goal, *, compared: bool) -> DeviceEvaluation:
    candidate = float(row.candidate[metric])
    champion = as_number(row.champion.get(metric)) if compared else None
    return DeviceEvaluation(
        device=row.device,
        candidate=candidate,
        champion=champion,
        examples=as_number(row.candidate.get(EXAMPLES)) or 0.0,
        worse_by=worse_by(candidate, champion, goal) if champion is not None else 0.0,
    )


def _worst_first(devices: list[DeviceEvaluation], goal: Goal) -> list[DeviceEvaluation]:
    """Against the champion where there is one, else by the metric itself."""
    sign = 1 if goal == "minimize" else -1
    return sorted(devices, key=lambda d: (d.worse_by, sign * d.candidate, d.device), reverse=True)


def _groups(
    rows: list[DeviceComparison], devices: list[DeviceEvaluation], goal: Goal
) -> list[GroupEvaluation]:
    """Cohorts and labels, the worst first, without devices that are out of all proportion."""
    plausible = {device.device for device in _within(devices, DISPROPORTION)}
    members: dict[tuple[str, str], list[DeviceEvaluation]] = {}
    for row, device in zip(rows, devices, strict=True):
        if device.device not in plausible:
            continue
        for kind, name in [("cohort", row.cohort), *row.labels.items()]:
            members.setdefault((kind, name), []).append(device)
    groups = [_group(kind, name, of, goal) for (kind, name), of in members.items()]
    sign = 1 if goal == "maximize" else -1
    return sorted(groups, key=lambda g: (-g.worse_by, sign * g.candidate, g.kind, g.name))


def _group(kind: str, name: str, members: list[DeviceEvaluation], goal: Goal) -> GroupEvaluation:
    candidate = weighted_mean([(d.candidate, d.examples) for d in members])
    compared = [(d.champion, d.examples) for d in members if d.champion is not None]
    champion = weighted_mean(compared) if compared else None
    return GroupEvaluation(
        kind=kind,
        name=name,
        devices=len(members),
        examples=sum(d.examples for d in members),
        candidate=candidate,
        champion=champion,
        worse_by=worse_by(candidate, champion, goal) if champion is not None else 0.0,
    )
