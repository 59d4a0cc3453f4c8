"""A cohort's mean holds exactly the updates that the fleet's judgement accepted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fakes.phases import device_result, phase_request
from msgspec.structs import replace

from fl_runtime.run.concurrency import THREADS
from fl_runtime.run.messages import DeviceResult, Folded, PhaseDone, PhaseEvent, PhaseRequest
from fl_runtime.server.grid.gather import gather

METRICS = {"loss": 1.0, "num-examples": 10}


class Cohorts:
    """Cohorts whose devices are all good, and that fold ``first`` of them before they are asked."""

    def __init__(self, *first: str, lost: Sequence[str] = ()) -> None:
        self.first, self.lost = first, lost
        self.requests: list[PhaseRequest] = []

    def run(self, request: PhaseRequest) -> Iterator[PhaseEvent]:
        self.requests.append(request)
        asked = [target.device for target in request.targets]
        yield from (device_result(device, metrics=METRICS) for device in asked)
        folded = asked if request.accepted else [name for name in asked if name in self.first]
        if folded and not (request.accepted and request.cohort in self.lost):
            yield Folded(request.phase, b"", len(folded), folded)
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
    means = {r.cohort: item.devices for item, r in events if isinstance(item, Folded)}
    return codes, means


def test_means_of_what_was_expected_are_used_as_they_are() -> None:
    cohorts = Cohorts("a", "b", "c", "d")
    codes, means = gathered(cohorts)
    assert set(codes.values()) == {""}
    assert means == {"c0000": ["a", "b"], "c0001": ["c", "d"]}
    assert len(cohorts.requests) == 2


def test_a_cohort_whose_mean_differs_from_the_judgement_folds_again() -> None:
    cohorts = Cohorts("a", "b", "c", "d")
    codes, means = gathered(cohorts, "c")
    assert codes == {"a": "", "b": "", "c": "weight", "d": ""}
    assert means == {"c0000": ["a", "b"], "c0001": ["d"]}
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
    assert means == {"c0000": ["a", "b"]}


def test_evaluations_are_averaged_by_the_server() -> None:
    cohorts = Cohorts()
    codes, means = gathered(cohorts, "d", kind="evaluate")
    assert codes["d"] == "weight"
    assert means == {"c0000": ["a", "b"], "c0001": ["c"]}
    assert len(cohorts.requests) == 2
