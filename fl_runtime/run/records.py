"""The record of each finished round, for MLflow, ``mledgeops run --json`` and the evidence; and the
comparison with the champion.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from edge.protocol.messages import Goal
from fl_runtime.run.cohorts import Cohort
from fl_runtime.run.decisions import robust_metrics
from fl_runtime.run.messages import DeviceResult
from fl_runtime.run.scoring import goal_of
from fl_runtime.run.spec import Champion


@dataclass
class PhaseStats:
    """One phase of a round: its duration and each device's result."""

    phase: str
    kind: str
    server_round: int
    seconds: float = 0.0
    results: list[DeviceResult] = field(default_factory=list)


class RoundSeconds(msgspec.Struct, frozen=True):
    """Where a round's time went: the sum over its phases.

    ``device`` (the app) and ``transfer`` (download and upload) are those of each phase's slowest
    device; ``overhead`` is the rest of ``total``.
    """

    total: float = 0.0
    device: float = 0.0
    transfer: float = 0.0
    overhead: float = 0.0


class RoundBytes(msgspec.Struct, frozen=True):
    """Bytes that all devices together sent and received in a round."""

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
    """L2 norm of the update's change; 0 where it was not measured."""
    examples: float = 0.0
    """The example count that it reports, its weight; 0 where it was not checked."""


class RoundRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One finished round, as ``run --json`` prints it."""

    round: int
    train: dict[str, Any]
    evaluate: dict[str, Any]
    server: dict[str, Any]
    participants: int
    failures: dict[str, int]
    seconds: RoundSeconds
    bytes: RoundBytes
    devices: list[DeviceRow] = []
    robust: dict[str, float] = {}
    """What decisions use in the place of ``evaluate``: :mod:`fl_runtime.run.decisions`. Of
    ``train``, in a round that nobody evaluated.
    """
    outliers: dict[str, list[str]] = {}
    """Devices whose evaluation is out of all proportion, by metric."""
    model: str = ""
    """Digest of the global weights after the round (``transient/RUN/arrays/``)."""
    start: int = 1
    """Which of the app's calls of ``Strategy.start`` the round belongs to; 0: the app sent its
    messages itself, without one.
    """
    finished_at: float = 0.0
    """Unix time of the commit, by the server that finished the round; 0 in records of version 0.4.
    """


def decisive_metrics(record: RoundRecord, metric: str = "") -> dict[str, Any]:
    """The round's metrics as decisions use them; empty when there are none.

    Those of the devices' evaluation, else those of the server's, else those of training; the first
    that have ``metric``, if it is given.
    """
    evaluate, train = dict(record.evaluate), dict(record.train)
    # Robust means are of the evaluation, where there is one.
    (evaluate or train).update(record.robust)
    return _first_with(metric, evaluate, record.server, train)


def reported_metrics(record: RoundRecord, metric: str = "") -> dict[str, Any]:
    """The same as the app reports them, without robust means."""
    return _first_with(metric, record.evaluate, record.server, record.train)


def _first_with(metric: str, *sources: Mapping[str, Any]) -> dict[str, Any]:
    # None: it was NaN or infinite, which JSON does not have.
    for source in sources:
        numbers = [name for name, value in source.items() if not isinstance(value, list | str)]
        if metric in numbers or (numbers and not metric):
            return dict(source)
    return {}


COMPARISON = "comparison.json"
"""File name of the comparison among the files of the final model."""


class DeviceComparison(msgspec.Struct, frozen=True, kw_only=True):
    """One device's metrics for candidate and champion; empty where it reported none."""

    device: str
    cohort: str
    labels: dict[str, str] = {}
    candidate: dict[str, Any] = {}
    champion: dict[str, Any] = {}
    reason: str = ""


def device_evaluations(record: RoundRecord, cohorts: list[Cohort]) -> list[DeviceComparison]:
    """The evaluations of a round's model, by device, with its cohort and labels."""
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
    """Candidate and champion, evaluated on the same devices (``comparison.json``)."""

    champion: Champion | None
    round: int
    devices: list[DeviceComparison]
    reason: str = ""
    """Why there is no comparison."""
    seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    strategy: str = ""
    """The strategy that trained the candidate."""
    goal: Goal | Literal[""] = ""
    """Whether the metric is to be minimized or maximized; empty: known by its name."""

    def goal_for(self, metric: str) -> Goal:
        """The goal of the metric that the candidate is judged by."""
        return self.goal or goal_of(metric)


def format_metrics(record: RoundRecord) -> str:
    """The round's evaluate metrics on one line, for people; the robust mean where it differs."""
    return "  ".join(
        f"{key} {value:.4g}{_robust_text(record.robust.get(key, value), value)}"
        for key, value in record.evaluate.items()
        if isinstance(value, int | float)
    )


def _robust_text(robust: float, value: float) -> str:
    return "" if f"{robust:.2g}" == f"{value:.2g}" else f" (robust {robust:.4g})"


def summarize(
    number: int,
    stats: list[PhaseStats],
    *,
    train: Mapping[str, Any],
    evaluate: Mapping[str, Any],
    server: Mapping[str, Any],
    model: str = "",
    start: int = 1,
    evaluated: Sequence[DeviceResult] | None = None,
) -> RoundRecord:
    """The record of a round's phases. Participants are the devices whose update counted.

    ``evaluated``: the devices' evaluations, for robust means; None: those of the phases.
    """
    results = [(phase, result) for phase in stats for result in phase.results]
    trained = {
        result.device
        for phase, result in results
        if phase.kind.startswith("train") and result.status == "ok"
    }
    failures = collections.Counter(result.code for _, result in results if result.status == "error")
    times = [_phase_seconds(phase) for phase in stats]
    train, evaluate, server = plain(train), plain(evaluate), plain(server)
    kind, judged = ("evaluate", evaluate) if evaluate or server else ("train", train)
    if evaluated is None or kind == "train":
        evaluated = [result for phase, result in results if phase.kind.startswith(kind)]
    robust, outliers = robust_metrics(judged, evaluated)
    return RoundRecord(
        round=number,
        train=train,
        evaluate=evaluate,
        server=server,
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
        robust=robust,
        outliers=outliers,
        model=model,
        start=start,
    )


def plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics in Python's own types: apps compute them with NumPy, and JSON takes none of its."""
    return {
        name: [_number(item) for item in value] if isinstance(value, list) else _number(value)
        for name, value in metrics.items()
    }


def _number(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _phase_seconds(phase: PhaseStats) -> tuple[float, float, float, float]:
    """(total, device, transfer, overhead) of one phase, in seconds."""
    # Nobody waited for over-selected devices ("spare"): they do not explain the phase's duration.
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
        examples=result.examples,
    )
