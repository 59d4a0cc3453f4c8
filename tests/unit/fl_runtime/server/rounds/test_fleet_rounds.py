"""What a fleet needs besides Flower's rounds: quorum, over-selection, exclusion, early ends."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from fakes.objects import MemoryObjects
from fakes.runs import (
    DEVICES,
    GOOD,
    failing,
    grid_of,
    initial,
    record,
    row,
    run_rounds,
    spec,
    training_device,
)
from flwr.serverapp.strategy import FedAvg
from hypothesis import given
from hypothesis import strategies as st

from edge.protocol.messages import Command, Reply
from edge.protocol.records import Records, encode_records
from fl_runtime.run.cohorts import Member, form_cohorts
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.records import RoundRecord
from fl_runtime.server.grid.flower_compat import round_loop
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.model.objective import Objective
from fl_runtime.server.rounds.device_history import EXCLUDED_ROUNDS, DeviceHistory
from fl_runtime.server.rounds.round_loop import RoundLoop
from fl_runtime.server.rounds.selection import over_select, select, without_excluded
from fl_runtime.server.rounds.stopping import StoppingCriteria
from fl_runtime.server.rounds.strategies import build, minimum_results

HALF = {"fraction_train": 0.5}


def silent(command: Command, content: Records) -> None:
    return None


def scaled(factor: float):
    """A device whose changes are outliers."""

    def device(command: Command, content: Records) -> Records:
        good = training_device("d5")(command, content)
        if command.kind == "train":
            good.arrays["arrays"]["w"] = (good.arrays["arrays"]["w"] * factor).astype(np.float32)
        return good

    return device


def test_a_round_that_misses_its_quorum_is_tried_again_and_then_ends_the_run() -> None:
    two = {**GOOD, "d0": failing(times=1), "d1": failing(times=1)}
    _, records = run_rounds(FedAvg(), two, quorum=6)
    assert [r.participants for r in records] == [6, 6, 6], "the second try of round 1 has all six"
    assert records[0].failures == {"worker-died": 2}
    with pytest.raises(
        RunFailed,
        match=(
            r"Only 4 devices gave a valid update, where 5 are needed, "
            r"in round 1 \(2 worker-died\)"
        ),
    ):
        run_rounds(FedAvg(), {**GOOD, "d0": failing(), "d1": failing()}, quorum_fraction=0.75)


def test_a_round_is_tried_three_times() -> None:
    flaky = {**GOOD, "d0": failing(times=2)}
    _, records = run_rounds(FedAvg(), flaky, quorum=6)
    assert records[0].participants == 6
    with pytest.raises(RunFailed, match="Only 5 devices gave a valid update"):
        run_rounds(FedAvg(), {**GOOD, "d0": failing(times=3)}, quorum=6)


def test_a_store_that_is_away_costs_an_attempt_and_not_the_run() -> None:
    class Away(MemoryObjects):
        def get(self, key: str, limit: int | None = None) -> bytes:
            if "/updates/00001-train-0001-" in key:
                raise ConnectionError("away")
            return super().get(key, limit)

    the_spec, records = spec(num_rounds=1), []
    loop = RoundLoop(the_spec, lambda record, checkpoint: records.append(record), lambda: False)
    with round_loop(IoTGrid, loop):
        grid = grid_of(GOOD, the_spec, objects=Away())
        FedAvg().start(grid=grid, initial_arrays=initial(), num_rounds=1)
    assert [r.participants for r in records] == [6]
    assert records[0].failures == {"not-opened": 6}


def test_a_failure_that_will_not_pass_is_not_tried_again() -> None:
    tries = []

    def wrong(command: Command, content: Records) -> Reply:
        tries.append(command.phase)
        return failing("app-error")(command, content)

    with pytest.raises(RunFailed, match="needed"):
        run_rounds(FedAvg(), {**GOOD, "d0": wrong}, quorum=6)
    assert len(tries) == 1


@pytest.mark.parametrize(
    ("name", "parameters", "least"),
    [
        ("FedAvg", {}, 1),
        ("Krum", {"num_malicious_nodes": 1}, 5),
        ("MultiKrum", {"num_malicious_nodes": 1, "num_nodes_to_select": 6}, 6),
        ("Bulyan", {"num_malicious_nodes": 1}, 7),
        ("Bulyan", {}, 3),
        ("FedTrimmedAvg", {"beta": 0.2}, 2),
        ("FedMedian", {}, 1),
    ],
)
def test_each_strategy_has_its_own_minimum(name: str, parameters: dict, least: int) -> None:
    assert minimum_results(build(name, parameters, 9)) == least
    if least > len(DEVICES):
        with pytest.raises(RunFailed, match=f"needs {least} valid updates"):
            run_rounds(build(name, parameters, 6), GOOD)


def test_over_selected_devices_replace_silent_ones_and_the_round_does_not_wait() -> None:
    devices = {f"d{i}": training_device(f"d{i % 6}") for i in range(6)} | {"e0": silent}
    _, records = run_rounds(
        FedAvg(), devices, per_proxy=0, num_rounds=12, strategy_params=HALF, over_selection=2.0
    )
    asked = collections.Counter(
        row.device
        for r in records
        for row in r.devices
        if row.kind == "train" and row.status != "spare"
    )
    assert all(r.participants == 3 for r in records), (
        "as many as the strategy wants, though one of those asked is silent"
    )
    assert asked["e0"] == 0, "a silent device is not a failure when enough others have answered"
    assert any(row.device == "e0" for r in records for row in r.devices), (
        "it was asked all the same"
    )


@given(
    st.integers(1, 40),
    st.integers(0, 9),
    st.floats(1.0, 3.0),
    st.integers(0, 5),
    st.sampled_from(["", "random", "least-seen", "stratified:site"]),
)
def test_a_choice_is_as_large_as_wanted_and_the_same_for_the_same_seed(
    count: int, per_proxy: int, over: float, seed: int, policy: str
) -> None:
    devices = [f"d{i:02d}" for i in range(20)]
    cohorts = form_cohorts(
        "f", devices, per_proxy, {d: {"site": str(i % 3)} for i, d in enumerate(devices)}
    )
    members = [member for cohort in cohorts for member in cohort.members]
    the_spec = spec(selection=policy, over_selection=over, seed=seed)
    chosen = select(the_spec, members, count, DeviceHistory(), 1, 1)
    assert len(chosen) == len({m.device for m in chosen}) == min(count, 20)
    assert chosen == select(the_spec, list(reversed(members)), count, DeviceHistory(), 1, 1)
    more = over_select(the_spec, cohorts, chosen, members, 1, 1)
    assert not {m.device for m in more} & {m.device for m in chosen}
    assert len(chosen) + len(more) <= np.ceil(len(chosen) * over) + 1e-9


def test_a_device_that_is_silent_in_training_is_not_waited_for_again_in_evaluation() -> None:
    _, records = run_rounds(FedAvg(), {**GOOD, "d0": silent}, num_rounds=2)
    assert [r.failures for r in records] == [{"no-reply": 1}, {"no-reply": 1}]
    assert [r.participants for r in records] == [5, 5]


def test_least_seen_selection_asks_each_device_equally_often() -> None:
    _, records = run_rounds(
        FedAvg(),
        GOOD,
        num_rounds=6,
        selection="least-seen",
        strategy_params=HALF,
        over_selection=1.0,
    )
    trained = collections.Counter(
        row.device for r in records for row in r.devices if row.kind == "train"
    )
    assert set(trained.values()) == {3}, "six rounds of three: each of six devices three times"


def test_stratified_selection_asks_small_groups_too() -> None:
    members = [Member(f"d{i}", i, {"site": "large" if i else "small"}) for i in range(10)]
    for number in range(1, 6):
        chosen = select(spec(selection="stratified:site"), members, 2, DeviceHistory(), number, 1)
        assert {m.labels["site"] for m in chosen} == {"large", "small"}


def test_a_device_that_keeps_failing_is_excluded_for_a_while_and_comes_back() -> None:
    _, records = run_rounds(FedAvg(), {**GOOD, "d0": failing("app-error")}, num_rounds=10)
    asked = [r.round for r in records if any(row.device == "d0" for row in r.devices)]
    assert asked == [1, 2, 3, 3 + EXCLUDED_ROUNDS + 1], "and out again at its next failure"
    history = DeviceHistory()
    for number in (1, 2, 3):
        history.add(record(number, row("a", "error"), row("b")))
    members = [Member("a", 1), Member("b", 2)]
    assert without_excluded(members, history, 4, 1) == [members[1]]
    assert without_excluded(members, history, 4, 2) == [members[1], members[0]], (
        "never fewer than the round needs"
    )


@pytest.mark.parametrize("name", ["FedAvg", "FedMedian"])
def test_an_outlier_never_reaches_the_model(name: str) -> None:
    """In the first round it is an outlier among the others, later against the rounds before."""
    clean, _ = run_rounds(
        build(name, {}, 6), {d: g for d, g in GOOD.items() if d != "d5"}, per_proxy=0
    )
    found, records = run_rounds(build(name, {}, 6), {**GOOD, "d5": scaled(1e6)}, per_proxy=0)
    np.testing.assert_allclose(found.arrays["w"].numpy(), clean.arrays["w"].numpy(), rtol=1e-6)
    assert [r.failures for r in records] == [{"norm": 1}] * 3
    _, records = run_rounds(
        FedAvg(), {**GOOD, "d5": failing(times=0), "d0": scaled(1.0)}, per_proxy=3
    )
    assert all(not r.failures for r in records), "ordinary changes pass"


class OverwrittenObjects(MemoryObjects):
    """The first device writes over its update after it was read for the first time."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: collections.Counter[str] = collections.Counter()

    def get(self, key: str, limit: int | None = None) -> bytes:
        self.reads[key] += 1
        if "train" in key and key.endswith("/d0.safetensors") and self.reads[key] > 1:
            arrays = {"w": np.full(5, 1e9, np.float32), "n": np.array(0)}
            metrics = {"num-examples": 9}
            return encode_records(Records(arrays={"arrays": arrays}, metrics={"metrics": metrics}))
        return super().get(key, limit)


@pytest.mark.parametrize("name", ["FedAvg", "FedMedian"])
def test_an_update_overwritten_after_its_check_does_not_count(name: str) -> None:
    """A device can write to its address until the deadline: what is read again must be the same."""
    records: list[RoundRecord] = []
    loop = RoundLoop(spec(num_rounds=1), lambda r, checkpoint: records.append(r), lambda: False)
    grid = grid_of(GOOD, spec(), 0, objects=OverwrittenObjects())
    with round_loop(IoTGrid, loop):
        result = build(name, {}, 6).start(grid=grid, initial_arrays=initial(), num_rounds=1)
    assert records[0].failures == {"bad-digest": 1}
    assert np.abs(result.arrays["w"].numpy()).max() < 1e3


def test_a_target_ends_the_run_and_a_budget_ends_it_with_the_best_model() -> None:
    _, records = run_rounds(FedAvg(), GOOD, num_rounds=9, metric="loss", target=1e9)
    assert len(records) == 1
    worse = iter([1.0, 5.0, 9.0, 9.0])
    values: dict[int, float] = {}

    def device(command: Command, content: Records) -> Records:
        good = training_device("d0")(command, content)
        if command.kind == "evaluate":
            good.metrics["metrics"]["loss"] = values.setdefault(command.server_round, next(worse))
        return good

    def ended(**changes: object) -> tuple[RoundLoop, list]:
        the_spec, records, clock = spec(num_rounds=4, metric="loss", **changes), [], [0.0]
        loop = RoundLoop(
            the_spec, lambda r, checkpoint: records.append((r, checkpoint)), lambda: False
        )
        grid = grid_of(
            {"d0": device},
            the_spec,
            phase_clock=lambda: clock.__setitem__(0, clock[0] + 5.0) or clock[0],
        )
        with round_loop(IoTGrid, loop):
            FedAvg(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1).start(
                grid=grid, initial_arrays=initial(), num_rounds=4
            )
        return loop, records

    loop, records = ended(max_seconds=25.0)
    assert len(records) == 2, "a third round of 10 s would take more than 25 s"
    assert "budget of 25 s" in loop.stopping.reason
    assert loop.finished.final_round == 1, "round 1 was the best"
    np.testing.assert_array_equal(
        loop.finished.result.arrays["w"].numpy(), records[0][1].arrays["w"]
    )
    values.clear()
    worse = iter([1.0, 5.0, 9.0, 9.0])
    loop, records = ended(max_cost=1e-12)
    assert (len(records), loop.finished.final_round) == (1, 1)
    assert "budget of USD" in loop.stopping.reason


def test_goals_by_name_and_by_word() -> None:
    from fl_runtime.run.cost import Topology

    for judge, values, best in (
        (Objective("accuracy"), (0.5, 0.9, 0.7), 2),
        (Objective("loss"), (0.5, 0.9, 0.7), 1),
        (Objective("loss", "maximize"), (0.5, 0.9, 0.7), 2),
    ):
        criteria = StoppingCriteria(spec(), Topology(proxies=0), judge)
        for number, value in enumerate(values, 1):
            criteria.add(record(number, accuracy=value, loss=value))
        assert criteria.best is not None
        assert criteria.best.round == best
    assert Objective("accuracy").value_if_reported({"loss": 1.0}) is None


def test_a_round_waits_for_devices_that_meet_the_requirements_and_gives_up_at_the_deadline() -> (
    None
):
    looks, now = [], [0.0]

    def ready() -> set[str]:
        looks.append(now[0])
        return set(DEVICES[:2]) if now[0] >= 10 else set()

    def sleep(seconds: float) -> None:
        now[0] += seconds

    the_spec, records = spec(num_rounds=1, require={"idle": True}, deadline_seconds=60.0), []
    loop = RoundLoop(
        the_spec,
        lambda r, checkpoint: records.append(r),
        lambda: False,
        eligible=ready,
        clock=lambda: now[0],
        sleep=sleep,
    )
    with round_loop(IoTGrid, loop):
        FedAvg().start(grid=grid_of(GOOD, the_spec), initial_arrays=initial(), num_rounds=1)
    assert records[0].participants == 2
    assert now[0] == 10.0
    loop = RoundLoop(
        the_spec, lambda *_: None, lambda: False, eligible=set, clock=lambda: now[0], sleep=sleep
    )
    with (
        round_loop(IoTGrid, loop),
        pytest.raises(RunFailed, match="met its requirements after 60 s"),
    ):
        FedAvg().start(grid=grid_of(GOOD, the_spec), initial_arrays=initial(), num_rounds=1)


def test_a_silent_device_gets_its_command_again() -> None:
    """It may have rebooted: the second command finds it, with the time that is left."""
    heard: list[float] = []

    def rebooting(command: Command, content: Records) -> Records | None:
        if command.kind == "train":
            heard.append(command.seconds)
        return training_device("d0")(command, content) if len(heard) > 1 else None

    _, records = run_rounds(FedAvg(), {**GOOD, "d0": rebooting}, num_rounds=1, phase_seconds=100.0)
    assert records[0].participants == 6
    assert heard[0] == 100.0
    assert 60.0 < heard[1] < 80.0
