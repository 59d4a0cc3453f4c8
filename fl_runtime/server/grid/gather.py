"""Gathers a phase: the results of all cohorts, judged together, and a mean of each cohort.

A cohort folds what earlier rounds let it expect. Where the judgement differs, it folds again what
was accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec.structs import replace

from edge.protocol.errors import ProtocolError
from edge.protocol.records import Records
from fl_runtime.cohort.fold import Fold
from fl_runtime.cohort.updates import trains
from fl_runtime.run.concurrency import Concurrency
from fl_runtime.run.messages import (
    DeviceResult,
    Folded,
    FoldedPart,
    PhaseRequest,
    Target,
    failure,
)
from fl_runtime.server.grid.cohort_means import CohortMean, MeanParts, ReceivedMean, mean_of, merged
from fl_runtime.server.grid.fan_out import CohortBackend, run_cohorts

Review = Callable[[Sequence[DeviceResult]], list[DeviceResult]]
_Found = tuple[dict[str, DeviceResult], dict[str, ReceivedMean]]
"""Results by device, and means by cohort."""


def gather(
    backend: CohortBackend,
    requests: Sequence[PhaseRequest],
    review: Review,
    concurrency: Concurrency,
) -> Iterator[tuple[DeviceResult | CohortMean, PhaseRequest]]:
    """The phase's final results, by device, and then the mean of those that count."""

    def run(asked: Sequence[PhaseRequest]) -> _Found:
        return _run(backend, asked, concurrency)

    results, folded = run(requests)
    # By name: neither judgement nor sums may depend on who answered first.
    final = {result.device: result for result in review(_by_name(results.values()))}
    means: dict[str, CohortMean] = {}
    if requests and requests[0].fold:
        if trains(requests[0]):
            means = _means(requests, final, _fold(run, requests, final, folded))
        else:
            means = _fold_metrics(requests, final)
    cohort_of = {target.device: request for request in requests for target in request.targets}
    yield from ((result, cohort_of[result.device]) for result in _by_name(final.values()))
    counted = [request for request in requests if request.cohort in means]
    if counted:
        mean = merged([means[request.cohort] for request in counted], counted[0].weighted_by)
        yield mean, counted[0]


def results_of(
    backend: CohortBackend, requests: Sequence[PhaseRequest], concurrency: Concurrency
) -> Iterator[tuple[DeviceResult | CohortMean, PhaseRequest]]:
    """The results as they come, for a phase that is neither judged nor folded."""
    for item, request in run_cohorts(backend, requests, concurrency):
        if isinstance(item, DeviceResult):
            yield item, request


def _run(
    backend: CohortBackend, requests: Sequence[PhaseRequest], concurrency: Concurrency
) -> _Found:
    results: dict[str, DeviceResult] = {}
    parts = {request.cohort: MeanParts() for request in requests}
    means: dict[str, ReceivedMean] = {}
    for item, request in run_cohorts(backend, requests, concurrency):
        if isinstance(item, DeviceResult):
            results[item.device] = item
        elif isinstance(item, FoldedPart):
            parts[request.cohort].add(item)
        elif isinstance(item, Folded):
            means[request.cohort] = parts[request.cohort].finish(item)
    return results, means


def _fold(
    run: Callable[[Sequence[PhaseRequest]], _Found],
    requests: Sequence[PhaseRequest],
    final: dict[str, DeviceResult],
    means: dict[str, ReceivedMean],
) -> dict[str, ReceivedMean]:
    """A mean of exactly the accepted updates for each cohort. ``final`` gets those failures that
    show only when updates are read again.
    """
    good = {request.cohort: _accepted(request, final) for request in requests}
    kept = {
        cohort: mean
        for cohort, mean in means.items()
        if good[cohort] and set(mean.devices) == {result.device for result in good[cohort]}
    }
    repeated = [
        replace(request, accepted=good[request.cohort], targets=_targets(request, good))
        for request in requests
        if good[request.cohort] and request.cohort not in kept
    ]
    if not repeated:
        return kept
    results, again = run(repeated)
    for request in repeated:
        mean = again.get(request.cohort)
        folded = set(mean.devices) if mean is not None else set()
        for target in request.targets:
            found = results.get(target.device)
            if found is not None and found.status != "ok":
                final[target.device] = found
            elif target.device not in folded:
                reason = f"cohort {request.cohort} did not fold the update"
                final[target.device] = failure(target, "cohort-lost", reason)
    return {**kept, **again}


def _means(
    requests: Sequence[PhaseRequest],
    final: dict[str, DeviceResult],
    folded: dict[str, ReceivedMean],
) -> dict[str, CohortMean]:
    """What counts of the means. ``final`` gets the failures of a cohort that sent another."""
    found = {}
    for request in requests:
        if request.cohort not in folded:
            continue
        accepted = _accepted(request, final)
        try:
            found[request.cohort] = mean_of(folded[request.cohort], request, accepted)
        except ProtocolError as error:
            reason = f"the mean of cohort {request.cohort} was refused: {error}"
            for target in request.targets:
                if final[target.device].status == "ok":
                    final[target.device] = failure(target, "cohort-lost", reason)
    return found


def _fold_metrics(
    requests: Sequence[PhaseRequest], final: dict[str, DeviceResult]
) -> dict[str, CohortMean]:
    """The mean metrics of an evaluation, for each cohort."""
    found = {}
    for request in requests:
        fold = Fold(request.phase, request.weighted_by)
        for result in _accepted(request, final):
            records = Records(metrics={"metrics": result.metrics})
            final[result.device] = fold.add(result, records)
        if (mean := fold.records()) is not None:
            found[request.cohort] = CohortMean(mean)
    return found


def _accepted(request: PhaseRequest, final: dict[str, DeviceResult]) -> list[DeviceResult]:
    results = [final[target.device] for target in request.targets if target.device in final]
    return [result for result in _by_name(results) if result.status == "ok"]


def _targets(request: PhaseRequest, good: dict[str, list[DeviceResult]]) -> list[Target]:
    wanted = {result.device for result in good[request.cohort]}
    return [target for target in request.targets if target.device in wanted]


def _by_name(results: Iterable[DeviceResult]) -> list[DeviceResult]:
    return sorted(results, key=lambda result: result.device)
