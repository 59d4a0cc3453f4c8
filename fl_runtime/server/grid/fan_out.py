"""All cohorts of a phase at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from fl_runtime.run.concurrency import Concurrency
from fl_runtime.run.messages import PhaseEvent, PhaseRequest


class CohortBackend(Protocol):
    """Port: carries out a phase request, in-process (CohortRunner) or by proxies (ProxyHub)."""

    def run(self, request: PhaseRequest) -> Iterator[PhaseEvent]:
        """Yield events until the cohort is done."""


def run_cohorts(
    backend: CohortBackend, requests: Sequence[PhaseRequest], concurrency: Concurrency
) -> Iterator[tuple[PhaseEvent, PhaseRequest]]:
    """Run all requests concurrently and yield their events as they come.

    An exception in one of them is raised here, in the caller's thread.
    """
    return concurrency.merged([_events(backend, request) for request in requests])


def _events(
    backend: CohortBackend, request: PhaseRequest
) -> Iterator[tuple[PhaseEvent, PhaseRequest]]:
    for item in backend.run(request):
        yield item, request
