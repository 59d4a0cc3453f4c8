"""What a cohort does with updates that passed their checks: odd ones found out by their norms, the
others folded.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import msgspec

from edge.protocol.errors import ProtocolError
from edge.protocol.records import ArrayMap, Records, decode_records, encode_records
from fl_runtime.cohort.aggregation import WeightedMean, change_norm
from fl_runtime.run.keys import arrays_key
from fl_runtime.run.messages import DeviceResult, Event, Folded, PhaseRequest, odd_metrics
from fl_runtime.run.ports import ObjectStore

NORM_QUORUM = 3
"""Changes that a phase must have before one of them can be called odd among them."""


class Fold:
    """Folds accepted updates, apart by the metrics they report; in the end the largest group
    counts.

    So a device with odd metric keys is left out even when it answers first. The groups are bounded,
    since each holds a model.
    """

    GROUPS = 3

    def __init__(self, phase: str, weighted_by: str) -> None:
        self._phase = phase
        self._weighted_by = weighted_by
        self._groups: dict[frozenset[str], tuple[WeightedMean, list[DeviceResult]]] = {}
        self._refused: list[DeviceResult] = []

    def add(self, result: DeviceResult, records: Records) -> None:
        """Take one checked update in."""
        layout = frozenset(result.metrics)
        if layout not in self._groups and len(self._groups) == self.GROUPS:
            self._refused.append(odd_metrics(result))
            return
        mean, results = self._groups.setdefault(layout, (WeightedMean(self._weighted_by), []))
        try:
            mean.fold(records, float(result.metrics[self._weighted_by]))
            results.append(result)
        except ProtocolError:
            self._refused.append(odd_metrics(result))

    def finish(self) -> Iterator[Event]:
        """Every device's result, then the mean of the largest group."""
        groups = sorted(self._groups.values(), key=lambda group: len(group[1]), reverse=True)
        for _, results in groups[1:]:
            self._refused.extend(odd_metrics(result) for result in results)
        yield from self._refused
        if groups:
            mean, results = groups[0]
            yield from results
            yield Folded(self._phase, encode_records(mean.records()), mean.count)


class Gate:
    """Finds changes whose L2 norm is out of all proportion to the others'.

    With a limit, known from earlier rounds, each update is judged as it comes. Without one, results
    wait here (their
    arrays do not) until all have come, and the median of their norms says what is odd.
    """

    def __init__(self, objects: ObjectStore, request: PhaseRequest) -> None:
        self._request = request
        self._held: list[DeviceResult] = []
        watched = (
            request.checked
            and request.specs is not None
            and request.arrays is not None
            and request.kind.startswith("train")
        )
        self._watched = watched and (request.norm_limit > 0 or request.norm_factor > 0)
        self._sent: ArrayMap = {}
        if self._watched and request.arrays is not None:
            sent = decode_records(
                objects.get(arrays_key(request.run, request.arrays.digest), request.arrays.size)
            )
            self._sent = next(iter(sent.arrays.values()))

    @property
    def holds(self) -> bool:
        """Whether results wait until all have come."""
        return self._watched and self._request.norm_limit <= 0

    def check(self, records: Records) -> float:
        """The norm of an update's change; raises ProtocolError ``norm`` above the limit."""
        if not self._watched:
            return 0.0
        norm = change_norm(self._sent, next(iter(records.arrays.values())))
        limit = self._request.norm_limit
        if 0 < limit < norm:
            raise ProtocolError(
                "norm",
                f"the update's change has norm {norm:.3g}, where at most {limit:.3g} is plausible",
            )
        return norm

    def hold(self, result: DeviceResult) -> None:
        """Keep a result until :meth:`release`."""
        self._held.append(result)

    def release(self) -> tuple[list[DeviceResult], list[DeviceResult]]:
        """(good, odd) of what was held, in the order of their names."""
        held = sorted(self._held, key=lambda result: result.device)
        if len(held) < NORM_QUORUM:
            return held, []
        limit = statistics.median(result.norm for result in held) * self._request.norm_factor
        odd = [result for result in held if 0 < limit < result.norm]
        reason = f"the update's change is above {limit:.3g}, {self._request.norm_factor:g} times the median's"
        return [r for r in held if r not in odd], [
            msgspec.structs.replace(r, status="error", code="norm", reason=reason) for r in odd
        ]
