"""A phase's events as Flower reply messages."""

from __future__ import annotations

from collections.abc import Mapping

from flwr.app import Message

from edge.protocol.errors import ProtocolError
from edge.protocol.records import Records, decode_skeleton
from fl_runtime.cohort.kept import KeptUpdates
from fl_runtime.cohort.updates import fault, overwritten, read_update
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.messages import DeviceResult, PhaseRequest
from fl_runtime.run.ports import ObjectStore
from fl_runtime.run.records import PhaseStats
from fl_runtime.server.grid.cohort_means import CohortMean
from fl_runtime.server.grid.flower_compat import make_error, make_reply
from fl_runtime.server.grid.mapped_arrays import to_mapped_recorddict


class PhaseReplies:
    """Turns the events of one phase into replies, and keeps each device's result in its stats."""

    def __init__(
        self,
        objects: ObjectStore,
        messages: Mapping[int, Message],
        stats: PhaseStats,
        kept: KeptUpdates | None = None,
    ) -> None:
        """``kept``: what cohorts in this process have read."""
        self._objects = objects
        self._kept = kept or KeptUpdates()
        self._messages = messages
        self._stats = stats

    def read(self, item: DeviceResult | CohortMean, request: PhaseRequest) -> Message | None:
        """The reply that an event makes; None for one that makes none (folded, over-selected)."""
        if isinstance(item, CohortMean):
            return self._of_cohort(item, request)
        self._stats.results.append(item)
        return self._of_device(item, request)

    def _of_device(self, result: DeviceResult, request: PhaseRequest) -> Message | None:
        message = self._messages[result.node_id]
        if result.status == "error":
            return make_error(message, result.code, result.reason)
        if result.status == "spare" or request.fold:
            return None
        try:
            return make_reply(message, to_mapped_recorddict(self._records(result, request)))
        except (ProtocolError, ObjectMissing) as error:
            # The device wrote over its update after the cohort had checked it.
            changed = overwritten(result, error)
        except Exception as error:  # noqa: BLE001  # one device's update must not end the phase
            changed = fault(result, error)
        self._stats.results[-1] = changed
        return make_error(message, changed.code, changed.reason)

    def _of_cohort(self, mean: CohortMean, request: PhaseRequest) -> Message:
        """The cohort's mean, as a reply to the message of its first device that counts."""
        counted = {result.device for result in self._stats.results if result.status == "ok"}
        first = next(target for target in request.targets if target.device in counted)
        message = self._messages[first.node_id]
        return make_reply(message, to_mapped_recorddict(mean.records))

    def _records(self, result: DeviceResult, request: PhaseRequest) -> Records:
        if result.update is None:
            return decode_skeleton(result.content)
        kept = self._kept.take(request, result.device, result.update)
        if kept is not None:
            return kept
        return read_update(self._objects, request, result.device, result.update)
