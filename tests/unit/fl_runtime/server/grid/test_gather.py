"""A cohort's mean holds exactly the updates that the fleet's judgement accepted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from fakes.phases import device_result, phase_request, update
from msgspec.structs import replace

from edge.protocol.records import Records, encode_records
from fl_runtime.run.concurrency import THREADS
from fl_runtime.run.messages import DeviceResult, Folded, PhaseDone, PhaseEvent, PhaseRequest
from fl_runtime.server.grid.cohort_means import CohortMean
from fl_runtime.server.grid.gather import gather

METRICS = {"loss": 1.0, "num-examples": 10}
MEAN = update(1.0, 20, loss=1.0)
"""What an honest proxy sends of two devices."""


class Cohorts:
    """Cohorts whose devices are all good, and that fold ``first`` of them before they are asked."""

    def __init__(
        self,
        *first: str,
        lost: Sequence[str] = (),
        mean: Records = MEAN,
        names: Sequence[str] = (),
        metrics: dict = METRICS,
    ) -> None:
        self.first, self.lost = first, lost
        self.mean, self.names, self.metrics = mean, names, metrics
        self.requests: list[PhaseRequest] = []

    def run(self, request: PhaseRequest) -> Iterator[PhaseEvent]:
        self.requests.append(request)
        asked = [target.device for target in request.targets]
        yield from (device_result(name, metrics=self.metrics, examples=10.0) for name in asked)
        folded = asked if request.accepted else [name for name in asked if name in self.first]
        if folded and not (request.accepted and request.cohort in self.lost):
            blob = encode_records(self.mean)
            yield Folded(request.phase, blob, len(folded), [*folded, *self.names])
        yield PhaseDone(request.phase)


def refusing(*devices: str):
    def review(results: Sequence[DeviceResult]) -> list[DeviceResult]:
        return [
            replace(item, status="error", code="weight") if item.device in devices else item
            for item in results
        ]

    return review


def gathered(cohorts: Cohorts, *refused: str, kind: str = "train") -> tuple[dict, dict]:
    requests = [
        phase_request("a", "b", cohort="c0000", kind=kind),
        phase_request("c", "d", cohort="c0001", kind=kind),
    ]
    events = list(gather(cohorts, requests, refusing(*refused), THREADS))
    codes = {item.device: item.code for item, _ in events if isinstance(item, DeviceResult)}
    means = {r.cohort: weight_of(item) for item, r in events if isinstance(item, CohortMean)}
    return codes, means


def weight_of(mean: CohortMean) -> object:
    return mean.records.metrics["metrics"]["num-examples"]


def test_means_of_what_was_expected_are_used_as_they_are() -> None:
    cohorts = Cohorts("a", "b", "c", "d")
    codes, means = gathered(cohorts)
    assert set(codes.values()) == {""}
    assert means == {"c0000": 40}
    assert len(cohorts.requests) == 2


def test_a_cohort_whose_mean_differs_from_the_judgement_folds_again() -> None:
    cohorts = Cohorts("a", "b", "c", "d")
    codes, means = gathered(cohorts, "c")
    assert codes == {"a": "", "b": "", "c": "weight", "d": ""}
    assert means == {"c0000": 30}
    again = cohorts.requests[2:]
    assert [[item.device for item in request.accepted] for request in again] == [["d"]]


def test_a_cohort_without_an_accepted_update_has_no_mean() -> None:
    cohorts = Cohorts("a", "b")
    _, means = gathered(cohorts, "a", "b", "c", "d")
    assert means == {}
    assert len(cohorts.requests) == 2


def test_what_was_lost_when_it_was_to_be_folded_does_not_count() -> None:
    codes, means = gathered(Cohorts(lost=["c0001"]))
    assert codes == {"a": "", "b": "", "c": "cohort-lost", "d": "cohort-lost"}
    assert means == {"c0000": 20}


def test_evaluations_are_averaged_by_the_server() -> None:
    cohorts = Cohorts()
    codes, means = gathered(cohorts, "d", kind="evaluate")
    assert codes["d"] == "weight"
    assert means == {"c0000": 30}
    assert len(cohorts.requests) == 2


def test_a_mean_weighs_and_reports_what_its_devices_do_whatever_a_proxy_claims() -> None:
    claims = update(1.0, 10**12, loss=0.0, invented=1.0)
    requests = [phase_request("a", "b", cohort="c0000")]
    events = list(gather(Cohorts("a", "b", mean=claims), requests, refusing(), THREADS))
    (mean,) = [item for item, _ in events if isinstance(item, CohortMean)]
    assert mean.records.metrics == {"metrics": METRICS | {"num-examples": 20}}
    np.testing.assert_array_equal(mean.records.arrays["arrays"]["w"], np.ones(3))


@pytest.mark.parametrize(
    "proxy",
    [
        {"mean": update(np.nan, 20)},
        {"mean": Records(arrays={"arrays": {"w": np.ones(4, np.float32)}}, metrics={"m": {}})},
        {"mean": Records(arrays={"arrays": {"w": np.ones(3, np.float32)}})},
        {"metrics": METRICS | {"num-examples": 10**12}},
        {"metrics": {"loss": 1.0}},
    ],
    ids=["NaN", "another shape", "no metrics", "a weight nobody judged", "no weight"],
)
def test_a_mean_that_is_not_one_of_updates_costs_its_cohort_and_no_other(proxy: dict) -> None:
    class One:
        def run(self, request: PhaseRequest) -> Iterator[PhaseEvent]:
            lies = proxy if request.cohort == "c0001" else {}
            return Cohorts("a", "b", "c", "d", **lies).run(request)

    codes, means = gathered(One())
    assert codes == {"a": "", "b": "", "c": "cohort-lost", "d": "cohort-lost"}
    assert means == {"c0000": 20}


def test_a_proxy_folds_nobody_but_those_that_it_was_asked_for() -> None:
    codes, means = gathered(Cohorts(names=["somebody"]))
    assert set(codes.values()) == {"cohort-lost"}
    assert means == {}
