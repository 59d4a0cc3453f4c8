"""Collects a candidate's evidence from what its run left in S3, and from the fleet's heartbeats."""

from __future__ import annotations

import collections
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from edge.protocol.messages import Goal
from edge.training.app_bundle import FlowerApp, unpack
from fl_runtime.run.cohorts import Cohort
from fl_runtime.run.cost import Topology, round_cost
from fl_runtime.run.devices import DeviceStatus
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import app_key, cohorts_key, model_key, round_key, spec_key
from fl_runtime.run.ports import ObjectStore
from fl_runtime.run.records import (
    COMPARISON,
    Comparison,
    DeviceComparison,
    RoundRecord,
    device_evaluations,
)
from fl_runtime.run.scoring import score_of
from fl_runtime.run.spec import RunSpec, decode_spec
from registry.evidence.drift import drift_of, servings
from registry.evidence.model import (
    WORST,
    Compared,
    Costs,
    Coverage,
    Device,
    Evidence,
    Group,
    Lineage,
    Participation,
    weighted,
    worse_by,
)
from registry.model_version import (
    DIGEST_TAG,
    EXECUTION,
    METRIC,
    MLFLOW_RUN,
    RUN_TAG,
    SCORE_TAG,
    Package,
)

EVIDENCE, CARD = "evidence.json", "card.html"
EXAMPLES = "num-examples"
NOT_THE_UPDATE = frozenset(
    {
        "no-reply",
        "cohort-lost",
        "not-sent",
        "deadline",
        "app-error",
        "app-load",
        "app-missing",
        "device-error",
        "disk-full",
        "download-failed",
        "upload-failed",
        "out-of-memory",
        "worker-died",
        "unsigned",
        "claim",
        "other",
        "update-missing",
    }
)
"""Reasons for which no update came; every other is an update that came and was refused."""
READERS = 8
GROUPS_KEPT = 500
UPDATES_KEPT = 1000
Heartbeats = Callable[[str], Iterable[DeviceStatus]]
"""A fleet's devices by their last heartbeats."""


def collect(
    package: Package, model_version: str, objects: ObjectStore, heartbeats: Heartbeats
) -> Evidence:
    """Read everything and put it together. Raises ObjectMissing when the run did not leave what it
    takes.
    """
    run = package.metadata[RUN_TAG]
    spec = decode_spec(objects.get(spec_key(run)))
    cohorts = msgspec.json.decode(objects.get(cohorts_key(run)), type=list[Cohort])
    compared = msgspec.json.decode(objects.get(model_key(run, COMPARISON)), type=Comparison)
    metric = package.metadata.get(METRIC, spec.metric)
    goal = compared.goal_for(metric)
    with tempfile.TemporaryDirectory() as folder:
        app = unpack(objects.get(app_key(spec.app)), Path(folder))
    story = _Story(spec, cohorts, compared.round)
    for record in _rounds(objects, spec):
        story.take(record)
    final = story.final
    if final is None:
        raise ObjectMissing(f"the run {run} left no round")
    if not compared.devices:
        # of an app that runs its own rounds
        compared = msgspec.structs.replace(
            compared, round=final.round, devices=device_evaluations(final, cohorts)
        )
    return Evidence(
        model_version=model_version,
        metric=metric,
        goal=goal,
        value=score_of(float(package.metadata[SCORE_TAG]), goal),
        registered_at=time.time(),
        fleet=spec.fleet,
        description=app.description,
        licence=app.licence,
        intended_use=str(app.settings.get("intended-use", "")),
        curves=story.curves,
        compared=compare(compared, metric, goal),
        participation=story.participation(),
        coverage=_coverage(final, _champion_examples(objects, compared)),
        drift=drift_of(
            servings(heartbeats(spec.fleet), compared.champion.model_version)
            if compared.champion
            else {}
        ),
        costs=story.costs(compared),
        lineage=_lineage(package, spec, app, compared, final),
    )


class _Story:
    """What all rounds together say, taken one record after the other: a long run of a large fleet
    does not fit into a function's memory.
    """

    def __init__(self, spec: RunSpec, cohorts: list[Cohort], final_round: int) -> None:
        self._final_round = final_round
        self._shape = Topology(proxies=len(cohorts) if spec.devices_per_proxy else 0)
        self._devices = sorted({member.device for cohort in cohorts for member in cohort.members})
        self._good: set[str] = set()
        self._by_round: list[tuple[int, int]] = []
        self._failures: collections.Counter[str] = collections.Counter()
        self._rejected: collections.Counter[str] = collections.Counter()
        self._offenders: collections.Counter[str] = collections.Counter()
        self._updates, self._seconds, self._usd, self._work, self._up, self._down = (
            0,
            0.0,
            0.0,
            0.0,
            0,
            0,
        )
        self.curves: dict[str, list[tuple[int, float]]] = {}
        self.final: RoundRecord | None = None

    def take(self, record: RoundRecord) -> None:
        """One finished round, in order."""
        if self.final is None or self.final.round != self._final_round:
            self.final = record
        for group, metrics in (
            ("evaluate", record.evaluate),
            ("server", record.server),
            ("train", record.train),
        ):
            for name, value in metrics.items():
                if isinstance(value, int | float) and name != EXAMPLES:
                    self.curves.setdefault(f"{group}.{name}", []).append(
                        (record.round, float(value))
                    )
        self.curves.setdefault("seconds", []).append((record.round, record.seconds.total))
        trained = [
            row for row in record.devices if row.kind.startswith("train") and row.status != "spare"
        ]
        refused = [
            row for row in trained if row.status == "error" and row.code not in NOT_THE_UPDATE
        ]
        self._by_round.append((record.participants, len({row.device for row in trained})))
        self._good.update(row.device for row in trained if row.status == "ok")
        self._failures.update(row.code for row in record.devices if row.status == "error")
        self._rejected.update(row.code for row in refused)
        self._offenders.update(row.device for row in refused)
        self._updates += len(refused) + sum(row.status == "ok" for row in trained)
        self._seconds += record.seconds.total
        self._usd += round_cost(self._shape, record.seconds.total, len(record.devices))
        self._work += sum(row.seconds_work for row in record.devices)
        self._up, self._down = self._up + record.bytes.up, self._down + record.bytes.down

    def participation(self) -> Participation:
        """Who took part."""
        return Participation(
            devices=len(self._devices),
            ever=len(self._good),
            by_round=[count for count, _ in self._by_round],
            wanted_by_round=[wanted for _, wanted in self._by_round],
            failures=dict(self._failures),
            rejected=dict(self._rejected),
            updates=self._updates,
            absent=[device for device in self._devices if device not in self._good][:50],
            offenders=dict(self._offenders.most_common(10)),
        )

    def costs(self, compared: Comparison) -> Costs:
        """With the comparison's own phase."""
        return Costs(
            seconds=self._seconds + compared.seconds,
            usd=self._usd + round_cost(self._shape, compared.seconds, len(compared.devices)),
            bytes_up=self._up + compared.bytes_up,
            bytes_down=self._down + compared.bytes_down,
            device_seconds=self._work,
        )


def read_evidence(objects: ObjectStore, run: str) -> Evidence | None:
    """A version's evidence, by the run that made it; None for versions that were registered
    without.
    """
    try:
        return msgspec.json.decode(objects.get(model_key(run, EVIDENCE)), type=Evidence)
    except (ObjectMissing, msgspec.DecodeError):
        return None


def _rounds(objects: ObjectStore, spec: RunSpec) -> Iterator[RoundRecord]:
    """All finished rounds, in order; some are read at once."""

    def read(number: int) -> RoundRecord | None:
        try:
            return msgspec.json.decode(objects.get(round_key(spec.run, number)), type=RoundRecord)
        except ObjectMissing:
            return None

    with ThreadPoolExecutor(READERS) as pool:
        for at in range(1, spec.num_rounds + 1, READERS):
            batch = list(pool.map(read, range(at, min(at + READERS, spec.num_rounds + 1))))
            yield from (record for record in batch if record is not None)
            if None in batch:  # the run ended early
                return


def compare(comparison: Comparison, metric: str, goal: Goal) -> Compared:
    """Per device, per group and over all. Where the champion was evaluated too, only devices that
    evaluated both count.
    """
    champion = comparison.champion
    told = [row for row in comparison.devices if _number(row.candidate.get(metric)) is not None]
    both = [row for row in told if _number(row.champion.get(metric)) is not None]
    rows = both if champion is not None and both else told
    reason = comparison.reason
    if champion is not None and not both and not reason:
        reasons = collections.Counter(row.reason for row in told if row.reason)
        reason = f"no device evaluated both ({reasons.most_common(1)[0][0] if reasons else 'none reports ' + metric})"
    devices = [_device(row, metric, goal, compare=bool(both)) for row in rows]
    groups = [
        _group(kind, name, members, goal)
        for (kind, name), members in _by_group(rows, devices).items()
    ]
    everyone = _group("", "", devices, goal) if devices else None
    bad_first = sorted(
        devices,
        key=lambda d: (d.worse_by, d.candidate if goal == "minimize" else -d.candidate, d.device),
        reverse=True,
    )
    return Compared(
        champion=champion.model_version if champion else "",
        champion_digest=champion.digest if champion else "",
        reason=reason,
        round=comparison.round,
        devices=len(devices),
        better_on=sum(d.worse_by < 0 for d in devices),
        candidate=everyone.candidate if everyone else None,
        champion_value=everyone.champion if everyone else None,
        worse_by=everyone.worse_by if everyone else 0.0,
        worst=bad_first[:WORST],
        distribution=sorted(d.candidate for d in devices),
        groups=sorted(
            groups,
            key=lambda g: (
                -g.worse_by,
                g.candidate if goal == "maximize" else -g.candidate,
                g.kind,
                g.name,
            ),
        )[:GROUPS_KEPT],
    )


def _device(row: DeviceComparison, metric: str, goal: Goal, *, compare: bool) -> Device:
    candidate, champion = (
        float(row.candidate[metric]),
        _number(row.champion.get(metric)) if compare else None,
    )
    return Device(
        device=row.device,
        candidate=candidate,
        champion=champion,
        examples=_number(row.candidate.get(EXAMPLES)) or 0.0,
        worse_by=worse_by(candidate, champion, goal) if champion is not None else 0.0,
    )


def _by_group(
    rows: list[DeviceComparison], devices: list[Device]
) -> dict[tuple[str, str], list[Device]]:
    groups: dict[tuple[str, str], list[Device]] = {}
    for row, device in zip(rows, devices, strict=True):
        for kind, name in [("cohort", row.cohort), *row.labels.items()]:
            groups.setdefault((kind, name), []).append(device)
    return groups


def _group(kind: str, name: str, members: list[Device], goal: Goal) -> Group:
    candidate = weighted({d.device: (d.candidate, d.examples) for d in members})
    with_both = {d.device: (d.champion, d.examples) for d in members if d.champion is not None}
    champion = weighted(with_both) if with_both else None
    return Group(
        kind=kind,
        name=name,
        devices=len(members),
        examples=sum(d.examples for d in members),
        candidate=candidate,
        champion=champion,
        worse_by=worse_by(candidate, champion, goal) if champion is not None else 0.0,
    )


def _coverage(final: RoundRecord, champion_examples: float | None) -> Coverage:
    rows = [row for row in final.devices if row.kind.startswith("train") and row.status == "ok"]
    examples = [
        count for row in rows if (count := _number(row.metrics.get(EXAMPLES))) is not None
    ] or [0.0]
    return Coverage(
        examples=sum(examples),
        least=min(examples),
        median=statistics.median(examples),
        most=max(examples),
        champion_examples=champion_examples,
    )


def _champion_examples(objects: ObjectStore, comparison: Comparison) -> float | None:
    if comparison.champion is None:
        return None
    evidence = read_evidence(objects, comparison.champion.key.split("/")[1])
    return evidence.coverage.examples if evidence is not None else None


def _lineage(
    package: Package, spec: RunSpec, app: FlowerApp, comparison: Comparison, final: RoundRecord
) -> Lineage:
    parameters = {f"app.{key}": value for key, value in {**app.config, **spec.run_config}.items()}
    parameters |= {f"strategy.{key}": value for key, value in spec.strategy_params.items()}
    made = {
        row.device: row.digest
        for row in final.devices
        if row.kind.startswith("train") and row.status == "ok"
    }
    return Lineage(
        pipeline_execution_arn=spec.pipeline_execution_arn,
        execution_arn=package.metadata.get(EXECUTION, ""),
        run=spec.run,
        mlflow_run_id=package.metadata[MLFLOW_RUN],
        model_package_arn=package.arn,
        app=spec.app_name,
        app_version=app.version,
        app_digest=spec.app,
        model_digest=package.metadata[DIGEST_TAG],
        model_data=package.model_data,
        strategy=spec.strategy or comparison.strategy or "the app's",
        seed=spec.seed,
        rounds=final.round,
        parameters={key: str(value) for key, value in parameters.items()},
        updates=dict(sorted(made.items())[:UPDATES_KEPT]),
        resumed_from=spec.resume_from,
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
