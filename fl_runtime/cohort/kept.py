"""Updates of the phases under way that were read and may be needed once more.

An update that the server has yet to judge, or that no cohort folds, would be downloaded twice. As
a mapped file it takes the disk's space until the cohort's next phase begins, and hardly any memory.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from edge.protocol.messages import ObjectRef
from edge.protocol.records import Records
from fl_runtime.aggregation.mapped import IN_MEMORY
from fl_runtime.run.messages import PhaseRequest

FILES = 256
"""Most files kept at once: each takes a descriptor, of which a process has 1,024 by default."""
BYTES = 8 * 2**30
"""Most bytes kept at once. A Fargate task has 20 GiB of disk."""


@dataclass
class _Phase:
    name: str
    updates: dict[str, tuple[ObjectRef, Records]] = field(default_factory=dict)
    """By device."""


class KeptUpdates:
    """The kept updates of all cohorts that a process serves. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._phases: dict[tuple[str, str], _Phase] = {}
        """The last phase by run and cohort."""

    def keep(self, request: PhaseRequest, device: str, update: ObjectRef, records: Records) -> None:
        """Keep a checked update, unless it is small or there is no room: it is read again then."""
        if update.size <= IN_MEMORY:
            return
        key = (request.run, request.cohort)
        with self._lock:
            phase = self._phases.get(key)
            if phase is None or phase.name != request.phase:
                phase = self._phases[key] = _Phase(request.phase)
            sizes = [ref.size for of in self._phases.values() for ref, _ in of.updates.values()]
            if len(sizes) < FILES and sum(sizes) + update.size <= BYTES:
                phase.updates[device] = (update, records)

    def take(self, request: PhaseRequest, device: str, update: ObjectRef | None) -> Records | None:
        """A kept update, which is then kept no longer; None when it has to be read again."""
        with self._lock:
            phase = self._phases.get((request.run, request.cohort))
            if phase is None or phase.name != request.phase:
                return None
            kept, records = phase.updates.pop(device, (None, None))
        return records if kept is not None and kept == update else None
