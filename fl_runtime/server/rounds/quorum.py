"""How many valid updates a round needs, and what follows when it does not get them."""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence

import msgspec
from flwr.serverapp.strategy import Strategy

from fl_runtime.cohort.updates import FAULT_CODE
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.messages import DeviceResult
from fl_runtime.run.records import PhaseStats
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.rounds.strategies import minimum_nodes, minimum_results

ATTEMPTS = 3
"""How often a round without a quorum is attempted, when some of the failures may be transient."""
TRANSIENT = frozenset(
    {
        "no-reply",
        "cohort-lost",
        "not-sent",
        "deadline",
        "download-failed",
        "upload-failed",
        "worker-died",
        "out-of-memory",
        "disk-full",
        "update-missing",
        FAULT_CODE,
    }
)
"""Failures that may be over a moment later: links, reboots, memory. A wrong app stays wrong."""


class Quorum:
    """The quorum of one run with one strategy."""

    def __init__(self, spec: RunSpec, strategy: Strategy) -> None:
        self._spec = spec
        self._strategy = strategy

    @property
    def minimum_available(self) -> int:
        """Available devices without which a round cannot succeed."""
        return max(minimum_nodes(self._strategy), self.updates_needed(0))

    def updates_needed(self, wanted: int) -> int:
        """Valid updates that a round of ``wanted`` devices needs."""
        share = math.ceil(self._spec.quorum_fraction * wanted)
        return max(self._spec.quorum, share, minimum_results(self._strategy))

    def check_reachable(self, nodes: int) -> None:
        """Raise RunFailed when a fleet of ``nodes`` devices can never have a quorum.

        Flower would wait for ever for a strategy's minimum of nodes.
        """
        name = type(self._strategy).__name__
        if (least := minimum_nodes(self._strategy)) > nodes:
            raise RunFailed(
                "too-few-nodes",
                f"The strategy {name} wants at least {least} devices, and the run has {nodes}.",
            )
        if (needed := self.updates_needed(nodes)) > nodes:
            raise RunFailed(
                "quorum",
                f"A round needs {needed} valid updates ({name}, quorum {self._spec.quorum}), "
                f"and the run has {nodes} devices.",
            )


def has_transient_failure(phases: Sequence[PhaseStats]) -> bool:
    """Whether another attempt may succeed."""
    return any(result.code in TRANSIENT for result in _failed(phases))


def valid_updates(phases: Sequence[PhaseStats]) -> int:
    """Devices whose update counts."""
    return sum(result.status == "ok" for phase in phases for result in phase.results)


def discard(phases: Sequence[PhaseStats]) -> None:
    """Mark the valid results of an attempt as unused: the next attempt asks anew."""
    for phase in phases:
        phase.results = [
            msgspec.structs.replace(result, status="spare", code="repeated")
            if result.status == "ok"
            else result
            for result in phase.results
        ]


def no_quorum(number: int, phases: Sequence[PhaseStats], valid: int, needed: int) -> RunFailed:
    """The error of a round without a quorum: the failures, and an example of the most frequent."""
    failed = _failed(phases)
    if not failed:
        return RunFailed(
            "quorum",
            f"Round {number} needs {needed} valid updates, and only {valid} devices were asked.",
        )
    reasons = collections.Counter(result.code for result in failed)
    example = max(failed, key=lambda result: reasons[result.code])
    counts = ", ".join(f"{count} {code}" for code, count in reasons.most_common())
    got = (
        f"Only {valid} devices gave a valid update, where {needed} are needed,"
        if valid
        else "No device gave a valid update"
    )
    return RunFailed(
        failed[0].code, f"{got} in round {number} ({counts}); {example.device}: {example.reason}"
    )


def _failed(phases: Sequence[PhaseStats]) -> list[DeviceResult]:
    return [result for phase in phases for result in phase.results if result.status == "error"]
