"""All cohorts of a phase at once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Protocol

from fl_runtime.run.messages import PhaseEvent, PhaseRequest


class CohortBackend(Protocol):
    """Port: carries out a phase request, in-process (CohortRunner) or by proxies (ProxyHub)."""

    def run(self, request: PhaseRequest) -> Iterator[PhaseEvent]:
        """Yield events until the cohort is done."""


def run_cohorts(
    backend: CohortBackend, requests: Sequence[PhaseRequest]
) -> Iterator[tuple[PhaseEvent, PhaseRequest]]:
    """Run all requests concurrently and yield their events as they come.

    An exception in one of them is raised here, in the caller's thread.
    """
    if len(requests) == 1:  # needs no thread
        yield from ((item, requests[0]) for item in backend.run(requests[0]))
        return
    merged: queue.Queue[tuple[PhaseEvent, PhaseRequest] | BaseException | None] = queue.Queue()

    def drain(request: PhaseRequest) -> None:
        try:
            for item in backend.run(request):
                merged.put((item, request))
        except BaseException as error:  # noqa: BLE001  # raised again below
            merged.put(error)
        finally:
            merged.put(None)  # this cohort is done

    # Daemons: a cohort that hangs must not keep a stopped server alive.
    for request in requests:
        threading.Thread(target=drain, args=(request,), daemon=True).start()
    running = len(requests)
    while running:
        item = merged.get()
        if item is None:
            running -= 1
        elif isinstance(item, BaseException):
            raise item
        else:
            yield item
