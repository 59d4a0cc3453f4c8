"""A run's rounds, folded into what the evidence says about all of them.

Rounds are folded one at a time: the records of a long run on a large fleet exceed the memory of a
Lambda function.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec

from edge.typed import from_json
from fl_runtime.run.cohorts import Cohort
from fl_runtime.run.cost import Topology, round_cost
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import round_key
from fl_runtime.run.ports import ObjectStore
from fl_runtime.run.records import Comparison, DeviceRow, RoundRecord
from fl_runtime.run.spec import RunSpec
from registry.evidence.model import EXAMPLES, Costs, Participation

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
        "not-opened",
    }
)
"""Reason codes of phases without an update. Every other code is an update that was rejected."""
_READERS = 8
"""Round records read from S3 at the same time."""
_ABSENT_NAMED = 50
_OFFENDERS_NAMED = 10


class RunHistory:
    """Folds a run's round records, in order."""

    def __init__(self, spec: RunSpec, cohorts: list[Cohort], final_round: int) -> None:
        """``final_round``: the round whose model is the candidate; 0: the last one."""
        self._final_round = final_round
        self._topology = Topology(proxies=len(cohorts) if spec.devices_per_proxy else 0)
        self._devices = sorted({member.device for cohort in cohorts for member in cohort.members})
        self._participants: set[str] = set()
        self._by_round: list[tuple[int, int]] = []
        self._failures: collections.Counter[str] = collections.Counter()
        self._rejected: collections.Counter[str] = collections.Counter()
        self._offenders: collections.Counter[str] = collections.Counter()
        self._updates = 0
        self._costs = Costs(seconds=0.0, usd=0.0, bytes_up=0, bytes_down=0, device_seconds=0.0)
        self.curves: dict[str, list[tuple[int, float]]] = {}
        """Metrics by name (``evaluate.accuracy``, ``train.loss``): (round, value)."""
        self.final: RoundRecord | None = None
        """The round that made the candidate."""

    def add(self, record: RoundRecord) -> None:
        """Fold the next round."""
        if self.final is None or self.final.round != self._final_round:
            self.final = record
        self._add_curves(record)
        self._add_devices(record)
        self._costs = Costs(
            seconds=self._costs.seconds + record.seconds.total,
            usd=self._costs.usd
            + round_cost(self._topology, record.seconds.total, len(record.devices)),
            bytes_up=self._costs.bytes_up + record.bytes.up,
            bytes_down=self._costs.bytes_down + record.bytes.down,
            device_seconds=self._costs.device_seconds
            + sum(row.seconds_work for row in record.devices),
        )

    def participation(self) -> Participation:
        """Which devices took part."""
        absent = [device for device in self._devices if device not in self._participants]
        return Participation(
            devices=len(self._devices),
            ever=len(self._participants),
            by_round=[count for count, _ in self._by_round],
            wanted_by_round=[wanted for _, wanted in self._by_round],
            failures=dict(self._failures),
            rejected=dict(self._rejected),
            updates=self._updates,
            absent=absent[:_ABSENT_NAMED],
            offenders=dict(self._offenders.most_common(_OFFENDERS_NAMED)),
        )

    def costs(self, comparison: Comparison) -> Costs:
        """The costs of all rounds and of the comparison's phase."""
        phase_usd = round_cost(self._topology, comparison.seconds, len(comparison.devices))
        return msgspec.structs.replace(
            self._costs,
            seconds=self._costs.seconds + comparison.seconds,
            usd=self._costs.usd + phase_usd,
            bytes_up=self._costs.bytes_up + comparison.bytes_up,
            bytes_down=self._costs.bytes_down + comparison.bytes_down,
        )

    def _add_curves(self, record: RoundRecord) -> None:
        for group, metrics in (
            ("evaluate", record.evaluate),
            ("robust", record.robust),
            ("server", record.server),
            ("train", record.train),
        ):
            for name, value in metrics.items():
                if isinstance(value, int | float) and name != EXAMPLES:
                    points = self.curves.setdefault(f"{group}.{name}", [])
                    points.append((record.round, float(value)))
        self.curves.setdefault("seconds", []).append((record.round, record.seconds.total))

    def _add_devices(self, record: RoundRecord) -> None:
        trained = [row for row in train_rows(record) if row.status != "spare"]
        good = [row for row in trained if row.status == "ok"]
        rejected = [
            row for row in trained if row.status == "error" and row.code not in NOT_THE_UPDATE
        ]
        self._by_round.append((record.participants, len({row.device for row in trained})))
        self._participants.update(row.device for row in good)
        self._failures.update(row.code for row in record.devices if row.status == "error")
        self._rejected.update(row.code for row in rejected)
        self._offenders.update(row.device for row in rejected)
        self._updates += len(rejected) + len(good)


def train_rows(record: RoundRecord) -> list[DeviceRow]:
    """The train phases of a round, by device."""
    return [row for row in record.devices if row.kind.startswith("train")]


def read_rounds(objects: ObjectStore, spec: RunSpec) -> Iterator[RoundRecord]:
    """All finished rounds, in order."""

    def read(number: int) -> RoundRecord | None:
        try:
            return from_json(objects.get(round_key(spec.run, number)), type=RoundRecord)
        except ObjectMissing:
            return None

    with ThreadPoolExecutor(_READERS) as pool:
        # How many there are, the app alone may know.
        for first in itertools.count(1, _READERS):
            batch = list(pool.map(read, range(first, first + _READERS)))
            yield from (record for record in batch if record is not None)
            if None in batch:
                return
