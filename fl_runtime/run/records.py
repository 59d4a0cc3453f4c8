"""What is written of each finished round: for MLflow, for ``mledgeops run --json``, for the
dashboard.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from edge.protocol.messages import Goal
from fl_runtime.run.cohorts import Cohort
from fl_runtime.run.messages import DeviceResult
from fl_runtime.run.scoring import goal_of
from fl_runtime.run.spec import Champion


@dataclass
class PhaseStats:
    """What one phase cost and who took part; tracking reads it."""

    phase: str
    kind: str
    server_round: int
    seconds: float = 0.0
    results: list[DeviceResult] = field(default_factory=list)


class RoundSeconds(msgspec.Struct, frozen=True):
    """A round's time. ``device`` and ``transfer`` are those of each phase's slowest device."""

    total: float = 0.0
    device: float = 0.0
    transfer: float = 0.0
    overhead: float = 0.0


class RoundBytes(msgspec.Struct, frozen=True):
    """What crossed the devices' links in a round."""

    up: int = 0
    down: int = 0


class DeviceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One device in one phase; ``digest`` is its update's SHA-256."""

    round: int
    phase: str
    kind: str
    device: str
    status: str
    code: str
    reason: str
    digest: str
    seconds_fetch: float
    seconds_work: float
    seconds_upload: float
    bytes_up: int
    bytes_down: int
    metrics: dict[str, Any]
    norm: float = 0.0
    """L2 norm of the change that the device sent, where it was looked at."""


class RoundRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One finished round, as ``run --json`` shows it."""

    round: int
    train: dict[str, Any]
    evaluate: dict[str, Any]
    server: dict[str, Any]
    participants: int
    failures: dict[str, int]
    seconds: RoundSeconds
    bytes: RoundBytes
    devices: list[DeviceRow] = []
    model: str = ""
    """Digest of the weights after the round (``transient/RUN/arrays/``)."""


COMPARISON = "comparison.json"
"""Name of the comparison among the files of the final model."""


class DeviceComparison(msgspec.Struct, frozen=True, kw_only=True):
    """One device's evaluation of both; empty where it gave none."""

    device: str
    cohort: str
    labels: dict[str, str] = {}
    candidate: dict[str, Any] = {}
    champion: dict[str, Any] = {}
    reason: str = ""


def device_evaluations(record: RoundRecord, cohorts: list[Cohort]) -> list[DeviceComparison]:
    """The devices that evaluated a round's model, with where they belong and what they said of it."""
    at = {
        member.device: (cohort.cohort, member.labels)
        for cohort in cohorts
        for member in cohort.members
    }
    rows = [
        row
        for row in record.devices
        if row.kind.startswith("evaluate") and row.status == "ok" and row.device in at
    ]
    return [
        DeviceComparison(
            device=row.device,
            cohort=at[row.device][0],
            labels=at[row.device][1],
            candidate=dict(row.metrics),
        )
        for row in rows
    ]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What an approver compares (``comparison.json``)."""

    champion: Champion | None
    round: int
    devices: list[DeviceComparison]
    reason: str = ""
    """Why there is no champion to compare with."""
    seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    strategy: str = ""
    """The strategy that made the candidate."""
    goal: Goal | Literal[""] = ""
    """Whether more or less of the metric is better; empty: known by the metric's name."""

    def goal_for(self, metric: str) -> Goal:
        """The goal of the metric that the candidate is judged by."""
        return self.goal or goal_of(metric)


def format_metrics(record: RoundRecord) -> str:
    """The round's evaluate metrics as a person reads them."""
    return "  ".join(
        f"{key} {value:.4g}"
        for key, value in record.evaluate.items()
        if isinstance(value, int | float)
    )


def summarize(
    number: int,
    stats: list[PhaseStats],
    *,
    train: Mapping[str, Any],
    evaluate: Mapping[str, Any],
    server: Mapping[str, Any],
    model: str = "",
) -> RoundRecord:
    """Fold a round's phases into its record. Participants are the devices whose update counted."""
    results = [(phase, result) for phase in stats for result in phase.results]
    trained = {
        result.device
        for phase, result in results
        if phase.kind.startswith("train") and result.status == "ok"
    }
    failures = collections.Counter(result.code for _, result in results if result.status == "error")
    times = [_phase_seconds(phase) for phase in stats]
    return RoundRecord(
        round=number,
        train=dict(train),
        evaluate=dict(evaluate),
        server=dict(server),
        participants=len(trained),
        failures=dict(failures),
        seconds=RoundSeconds(*(round(sum(part), 4) for part in zip(*times, strict=True)))
        if times
        else RoundSeconds(),
        bytes=RoundBytes(
            sum(result.bytes_up for _, result in results),
            sum(result.bytes_down for _, result in results),
        ),
        devices=[_row(number, phase, result) for phase, result in results],
        model=model,
    )


def _phase_seconds(phase: PhaseStats) -> tuple[float, float, float, float]:
    """(total, device, transfer, overhead): overhead is what the slowest device cannot account for."""
    slowest = max(
        (result.timing for result in phase.results if result.status != "spare"),
        key=lambda t: t.fetch + t.work + t.upload,
        default=None,
    )
    if slowest is None:
        return phase.seconds, 0.0, 0.0, phase.seconds
    transfer = slowest.fetch + slowest.upload
    return phase.seconds, slowest.work, transfer, max(0.0, phase.seconds - slowest.work - transfer)


def _row(number: int, phase: PhaseStats, result: DeviceResult) -> DeviceRow:
    return DeviceRow(
        round=number,
        phase=phase.phase,
        kind=phase.kind,
        device=result.device,
        status=result.status,
        code=result.code,
        reason=result.reason,
        digest=result.update.digest if result.update else "",
        seconds_fetch=result.timing.fetch,
        seconds_work=result.timing.work,
        seconds_upload=result.timing.upload,
        bytes_up=result.bytes_up,
        bytes_down=result.bytes_down,
        metrics=dict(result.metrics),
        norm=result.norm,
    )
