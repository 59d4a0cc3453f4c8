"""The parts of a round by themselves: availability, quorum, outliers, history, stopping."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.clock import Clock
from fakes.runs import record, row, spec
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import FedAvg, Krum

from fl_runtime.run.cohorts import Member
from fl_runtime.run.cost import Topology, round_cost
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.messages import DeviceResult, Target, array_specs, failure
from fl_runtime.run.records import PhaseStats
from fl_runtime.server.model.objective import Objective
from fl_runtime.server.rounds.array_records import to_arrays, to_record, with_dtypes
from fl_runtime.server.rounds.availability import Availability
from fl_runtime.server.rounds.device_history import EXCLUDED_ROUNDS, NORM_FACTOR, DeviceHistory
from fl_runtime.server.rounds.evaluate_step import evaluate
from fl_runtime.server.rounds.quorum import (
    Quorum,
    discard,
    has_transient_failure,
    no_quorum,
    valid_updates,
)
from fl_runtime.server.rounds.stopping import StoppingCriteria
from fl_runtime.server.rounds.strategy_state import read_state, restore_state
from fl_runtime.server.rounds.train_step import RoundInput, TrainStep

MEMBERS = [Member(name, number) for number, name in enumerate("abc", 1)]


def phase(*results: DeviceResult) -> PhaseStats:
    return PhaseStats("p", "train", 1, 0.0, list(results))


def ok(device: str, **metrics: float) -> DeviceResult:
    return DeviceResult(device=device, node_id=1, message_id="m", status="ok", metrics=metrics)


def failed(device: str, code: str) -> DeviceResult:
    return failure(Target(device, 1, "m"), code, "because")


def test_a_device_that_fails_three_rounds_in_a_row_is_excluded_for_five() -> None:
    history = DeviceHistory()
    for number in (1, 2, 3):
        history.add(record(number, row("a", "error"), row("b")))
    assert history.excluded(4) == {"a"}
    assert history.excluded(3 + EXCLUDED_ROUNDS) == {"a"}
    assert history.excluded(4 + EXCLUDED_ROUNDS) == set()
    assert history.times_trained == {"a": 3, "b": 3}


def test_a_success_in_between_is_forgiven() -> None:
    history = DeviceHistory()
    for number, status in enumerate(("error", "error", "ok", "error"), 1):
        history.add(record(number, row("a", status)))
    assert history.excluded(5) == set()


def test_the_norm_limit_follows_the_medians_of_the_last_three_rounds() -> None:
    history = DeviceHistory()
    assert history.norm_limit() == 0.0, "nothing is known"
    for number, norm in enumerate((100.0, 1.0, 2.0, 3.0), 1):
        history.add(record(number, row("a", norm=norm), row("b", norm=norm)))
    assert history.norm_limit() == NORM_FACTOR * 3.0


def availability(eligible, **changes: object) -> Availability:
    clock = Clock()
    return Availability(
        spec=spec(deadline_seconds=60.0),
        history=DeviceHistory(),
        eligible=eligible,
        stopped=lambda: False,
        clock=clock,
        sleep=clock.sleep,
    )


def test_without_requirements_all_members_are_available_at_once() -> None:
    assert availability(None).wait(MEMBERS, 1, 2) == MEMBERS


def test_a_round_waits_for_enough_eligible_devices() -> None:
    answers = iter([{"a"}, {"a"}, {"a", "c"}])
    assert availability(lambda: next(answers)).wait(MEMBERS, 1, 2) == [MEMBERS[0], MEMBERS[2]]


def test_too_few_eligible_devices_until_the_deadline_end_the_run() -> None:
    with pytest.raises(RunFailed, match="2 devices, and 1 of the run's 3 met its requirements"):
        availability(lambda: {"a"}).wait(MEMBERS, 1, 2)


def test_a_quorum_is_the_largest_of_number_share_and_strategys_minimum() -> None:
    quorum = Quorum(spec(quorum=2, quorum_fraction=0.5), FedAvg(min_available_nodes=3))
    assert quorum.updates_needed(3) == 2
    assert quorum.updates_needed(10) == 5
    assert quorum.minimum_available == 3
    with pytest.raises(RunFailed, match="wants at least 3 devices, and the run has 2"):
        quorum.check_reachable(2)
    quorum.check_reachable(3)
    with pytest.raises(RunFailed, match="needs 9 valid updates"):
        Quorum(spec(quorum=9), FedAvg()).check_reachable(8)
    Quorum(spec(quorum=9), FedAvg()).check_reachable(9)
    assert Quorum(spec(quorum=9), FedAvg()).minimum_available == 9
    krum = Quorum(spec(), Krum(num_malicious_nodes=1))
    assert krum.updates_needed(10) == 5, "2f + 3"


def test_transient_failures_are_worth_another_attempt_which_asks_anew() -> None:
    stats = [phase(ok("a"), failed("b", "no-reply"))]
    assert has_transient_failure(stats)
    assert not has_transient_failure([phase(failed("b", "app-error"))])
    assert valid_updates(stats) == 1
    discard(stats)
    assert valid_updates(stats) == 0
    assert [result.code for result in stats[0].results] == ["repeated", "no-reply"]


def test_a_round_without_quorum_names_the_most_frequent_failure() -> None:
    stats = [phase(failed("a", "norm"), failed("b", "app-error"), failed("c", "app-error"))]
    error = no_quorum(3, stats, 0, 1)
    assert str(error) == (
        "No device gave a valid update in round 3 (2 app-error, 1 norm); b: because"
    )
    assert "only 2 devices were asked" in str(no_quorum(3, [], 2, 3))
    few = no_quorum(3, [phase(ok("a"), failed("b", "norm"))], 1, 2)
    assert str(few).startswith("Only 1 devices gave a valid update, where 2 are needed, in round 3")
    assert few.code == "norm"


@pytest.mark.parametrize(
    ("changes", "reason", "keep_best"),
    [
        ({"target": 0.8}, "the target of 0.8 was reached in round 2", False),
        ({"target": 0.9, "max_seconds": 1.0}, "the target of 0.9 was reached in round 2", False),
        ({"target": 0.91}, "", False),
        ({"max_seconds": 2.5}, "the budget of 2.5 s allows no further round (2.0 s used)", True),
        ({"max_seconds": 3.0}, "", False),
        ({"max_cost": 1e-12}, "the budget of USD 1e-12 allows no further round", True),
        ({"max_cost": 1.0}, "", False),
        ({}, "", False),
    ],
)
def test_a_run_stops_at_its_target_or_before_its_budget_is_exceeded(
    changes: dict, reason: str, keep_best: bool
) -> None:
    criteria = StoppingCriteria(spec(**changes), Topology(proxies=0), Objective("accuracy"))
    criteria.add(record(1, accuracy=0.5))
    criteria.add(record(2, accuracy=0.9))
    assert criteria.reason.startswith(reason)
    assert bool(criteria.reason) is bool(reason)
    assert criteria.keep_best is keep_best
    assert criteria.best.round == 2


def test_the_best_round_is_the_first_of_equals_and_a_budget_counts_all_rounds() -> None:
    criteria = StoppingCriteria(spec(max_seconds=3.5), Topology(proxies=0), Objective("accuracy"))
    for number, accuracy in enumerate((0.5, 0.7, 0.7), 1):
        assert criteria.reason == ""
        criteria.add(record(number, accuracy=accuracy))
    assert criteria.best and criteria.best.round == 2
    assert "(3.0 s used) after round 3" in criteria.reason
    without = StoppingCriteria(spec(target=0.0), Topology(proxies=0), Objective("accuracy"))
    without.add(record(1, loss=0.5))
    assert (without.best, without.reason) == (None, ""), "the metric was not reported"


def test_the_cost_of_a_budget_grows_with_each_round() -> None:
    topology, objective = Topology(proxies=3), Objective("accuracy")
    each = round_cost(topology, 1.0, 1)
    criteria = StoppingCriteria(spec(max_cost=3.5 * each), topology, objective)
    for number in (1, 2, 3):
        assert criteria.reason == ""
        criteria.add(record(number, row("a"), accuracy=0.5))
    assert f"(USD {3 * each:.4f} used)" in criteria.reason


def test_aggregated_arrays_get_the_models_dtypes_back() -> None:
    model = {"w": np.zeros(2, np.float32), "n": np.array(3, np.int64)}
    aggregated = ArrayRecord({"w": Array(np.array([0.5, 1.5])), "n": Array(np.array(3.6))})
    found = to_arrays(with_dtypes(aggregated, array_specs(model)))
    assert (found["w"].dtype, found["n"].dtype) == (np.float32, np.int64)
    assert found["n"] == 4
    read_only = np.zeros(2)
    read_only.flags.writeable = False
    assert to_arrays(to_record({"w": read_only}))["w"].tolist() == [0.0, 0.0]


def test_a_strategys_state_is_its_scalars_and_arrays() -> None:
    strategy, fresh = FedAvg(fraction_train=0.25), FedAvg()
    strategy.moments = {"w": np.arange(2.0)}
    strategy.not_kept = object()
    restore_state(fresh, read_state(strategy))
    assert fresh.fraction_train == 0.25
    np.testing.assert_array_equal(fresh.moments["w"], [0.0, 1.0])
    assert not hasattr(fresh, "not_kept")


def test_the_steps_of_a_round_follow_each_other() -> None:
    """Training returns the policy that its evaluation uses, which skips silent devices."""
    from fakes.runs import GOOD, grid_of, initial

    from fl_runtime.server.grid.phase_policy import PhasePolicy

    silent = lambda command, content: None  # noqa: E731
    grid = grid_of({**GOOD, "d0": silent}, spec())
    policy = PhasePolicy(available=grid.phases.members, checked=True)
    given = RoundInput(number=1, arrays=initial(), config=ConfigRecord(), timeout=60.0)
    step = TrainStep(FedAvg(), grid, policy, availability(None))
    trained, arrays, metrics = step.run(given)
    assert sorted(arrays) == ["n", "w"]
    assert metrics["train_loss"] > 0
    found = evaluate(FedAvg(), grid, trained, given)
    assert found["loss"] > 0
    asked = {result.device for result in grid.phases.take_stats()[-1].results}
    assert asked == {"d1", "d2", "d3", "d4", "d5"}
