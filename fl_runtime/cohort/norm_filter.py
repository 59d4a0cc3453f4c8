"""Measures how far an update moves the model, and refuses it above a known limit."""

from __future__ import annotations

import math

from edge.protocol.errors import ProtocolError
from edge.protocol.records import ArrayMap, Records, decode_records
from fl_runtime.aggregation.blocks import change_norm
from fl_runtime.aggregation.mapped import fetch
from fl_runtime.run.keys import arrays_key
from fl_runtime.run.messages import PhaseRequest
from fl_runtime.run.ports import ObjectStore


class NormFilter:
    """Refuses updates by the L2 norm of their change from the weights that were sent.

    With ``norm_limit`` (from earlier rounds) each update is judged as it arrives. Without one they
    are only measured: the server judges when those of all cohorts have arrived.
    """

    def __init__(self, objects: ObjectStore, request: PhaseRequest) -> None:
        self._request = request
        self._sent: ArrayMap | None = None
        if _filters(request) and request.arrays is not None:
            key = arrays_key(request.run, request.arrays.digest)
            sent, _ = fetch(objects, key, request.arrays.size)
            self._sent = next(iter(decode_records(sent).arrays.values()))

    @property
    def measures(self) -> bool:
        """Whether the phase is filtered."""
        return self._sent is not None

    @property
    def is_unjudged(self) -> bool:
        """Whether the server has yet to judge the norms."""
        return self._sent is not None and self._request.norm_limit <= 0

    def measure(self, records: Records) -> float:
        """The norm of an update's change; 0 where the phase is not filtered. Infinite or NaN where
        a value is, or where the norm is too large for float64.
        """
        if self._sent is None:
            return 0.0
        return change_norm(self._sent, next(iter(records.arrays.values())))

    def judge(self, norm: float) -> None:
        """Raise ProtocolError ``norm`` for a norm above the limit."""
        limit = self._request.norm_limit
        if not math.isfinite(norm):
            raise ProtocolError("norm", "the update's change is too large to be measured")
        if 0 < limit < norm:
            raise ProtocolError(
                "norm",
                f"the update's change has norm {norm:.3g}, where at most {limit:.3g} is plausible",
            )


def _filters(request: PhaseRequest) -> bool:
    """Only checked train phases over known weights are filtered, and only when asked for."""
    if not request.checked or request.specs is None or not request.kind.startswith("train"):
        return False
    return request.norm_limit > 0 or request.norm_factor > 0
