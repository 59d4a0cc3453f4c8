"""Folds a cohort's accepted updates into one weighted mean as they arrive."""

from __future__ import annotations

from collections.abc import Iterator

from edge.protocol.errors import ProtocolError
from edge.protocol.records import Records, encode_records
from fl_runtime.cohort.aggregation import WeightedMean
from fl_runtime.cohort.updates import fault
from fl_runtime.run.messages import (
    DeviceResult,
    Folded,
    PhaseEvent,
    Target,
    mismatched_metrics,
)

MAX_GROUPS = 3
"""Each group holds a model in memory."""


class Fold:
    """The weighted mean of one phase's updates.

    Updates are grouped by the metrics they report and the largest group counts, so a device with
    metric keys of its own is left out even when it answers first.
    """

    def __init__(self, phase: str, weighted_by: str) -> None:
        self._phase = phase
        self._weighted_by = weighted_by
        self._groups: dict[frozenset[str], tuple[WeightedMean, list[DeviceResult]]] = {}
        self._refused: list[DeviceResult] = []

    def add(self, result: DeviceResult, records: Records) -> None:
        """Add one checked update."""
        layout = frozenset(result.metrics)
        if layout not in self._groups and len(self._groups) == MAX_GROUPS:
            self._refused.append(mismatched_metrics(result))
            return
        try:
            self._add(layout, result, records)
        except ProtocolError:
            self._refused.append(mismatched_metrics(result))
        except Exception as error:  # noqa: BLE001  # a fault of ours costs one device, not all
            target = Target(result.device, result.node_id, result.message_id)
            self._refused.append(fault(target, error))

    def _add(self, layout: frozenset[str], result: DeviceResult, records: Records) -> None:
        mean, results = self._groups.setdefault(layout, (WeightedMean(self._weighted_by), []))
        mean.add(records, float(result.metrics[self._weighted_by]))
        results.append(result)

    def finish(self) -> Iterator[PhaseEvent]:
        """The result of every device added, then the mean of the largest group, if there is one."""
        # The sort is stable: of groups of equal size the one that came first counts.
        groups = sorted(self._groups.values(), key=lambda group: len(group[1]), reverse=True)
        for _, results in groups[1:]:
            self._refused.extend(mismatched_metrics(result) for result in results)
        yield from self._refused
        if groups:
            mean, results = groups[0]
            yield from results
            yield Folded(self._phase, encode_records(mean.records()), mean.count)
