"""A few devices in league own neither a cohort nor the model, nor do they decide for the fleet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fakes.objects import MemoryObjects
from fakes.runs import DEVICES, GOOD, grid_of, initial, run_rounds, spec, training_device
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvg

from edge.protocol.messages import Command
from edge.protocol.records import Records
from fl_runtime.run.records import RoundRecord
from fl_runtime.server.grid.flower_compat import round_loop
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.rounds.round_loop import RoundLoop
from fl_runtime.server.rounds.strategies import build

STRATEGIES = ["FedAvg", "FedMedian"]


def with_metrics(change: Callable[[Command, dict[str, Any]], dict[str, Any]], device: str = "d0"):
    """A device with other metrics than it measured."""

    def answer(command: Command, content: Records) -> Records:
        good = training_device(device)(command, content)
        good.metrics["metrics"] = change(command, good.metrics["metrics"])
        return good

    return answer


def sybil(number: int):
    """The first of three, by name too: each reports metrics of its own."""
    return with_metrics(lambda _, metrics: {**metrics, f"mine-{number}": 1.0})


def weights_of(arrays: ArrayRecord) -> np.ndarray:
    return arrays["w"].numpy()


def clean(name: str = "FedAvg", **changes: Any) -> tuple[Any, list[RoundRecord]]:
    return run_rounds(build(name, {}, 6), GOOD, per_proxy=0, **changes)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("per_proxy", [0, 3])
def test_three_sets_of_metrics_do_not_own_a_cohort(name: str, per_proxy: int) -> None:
    """They come first, and with three devices to a cohort they may be all of one."""
    devices = {f"a{number}": sybil(number) for number in range(3)} | GOOD
    result, records = run_rounds(build(name, {}, 6), devices, per_proxy)
    honest, _ = clean(name)
    assert [record.participants for record in records] == [6, 6, 6]
    assert [record.failures for record in records] == [{"metrics": 6}] * 3
    np.testing.assert_allclose(weights_of(result.arrays), weights_of(honest.arrays), rtol=1e-6)


def test_a_list_where_others_report_a_number_does_not_own_the_mean() -> None:
    devices = {"a0": with_metrics(lambda _, m: {**m, "loss": [m["loss"]] * 2})} | GOOD
    _, records = run_rounds(FedAvg(), devices, per_proxy=0)
    assert [record.failures for record in records] == [{"metrics": 2}] * 3


def test_an_app_may_report_other_metrics_from_some_round_on() -> None:
    """What earlier rounds had is a guess that saves a read, the phase's own majority decides."""

    def more(command: Command, metrics: dict[str, Any]) -> dict[str, Any]:
        return {**metrics, "late": 1.0} if command.server_round > 1 else metrics

    devices = {name: with_metrics(more, name) for name in DEVICES}
    result, records = run_rounds(FedAvg(), devices, per_proxy=2)
    honest, _ = clean()
    assert [record.participants for record in records] == [6, 6, 6]
    assert records[2].train["late"] == 1.0
    np.testing.assert_allclose(weights_of(result.arrays), weights_of(honest.arrays), rtol=1e-6)


class CountedObjects(MemoryObjects):
    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def get(self, key: str, limit: int | None = None) -> bytes:
        self.reads.append(key)
        return super().get(key, limit)


def test_updates_are_read_twice_in_the_first_round_only() -> None:
    objects = CountedObjects()
    loop = RoundLoop(spec(), lambda *_: None, lambda: False)
    with round_loop(IoTGrid, loop):
        FedAvg().start(
            grid=grid_of(GOOD, spec(), objects=objects), initial_arrays=initial(), num_rounds=3
        )
    reads = [sum("train" in key and f"0000{n}-" in key for key in objects.reads) for n in (1, 2, 3)]
    assert reads == [12, 6, 6]


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("from_round", [1, 2])
def test_a_count_out_of_all_proportion_is_refused_and_never_rescaled(
    name: str, from_round: int
) -> None:
    def claims(command: Command, metrics: dict[str, Any]) -> dict[str, Any]:
        return metrics | ({"num-examples": 10**12} if command.server_round >= from_round else {})

    _, records = run_rounds(build(name, {}, 6), {**GOOD, "d0": with_metrics(claims)}, per_proxy=2)
    assert [record.failures for record in records[from_round - 1 :]] == [{"weight": 2}] * (
        4 - from_round
    )
    assert all(record.evaluate["loss"] < 10 for record in records)


def test_a_devices_own_earlier_count_is_a_limit_as_well() -> None:
    def grows(command: Command, metrics: dict[str, Any]) -> dict[str, Any]:
        return {**metrics, "num-examples": 1 if command.server_round == 1 else 200}

    devices = {**GOOD, "d0": with_metrics(grows)}
    _, records = run_rounds(FedAvg(), devices, num_rounds=2)
    assert [record.failures for record in records] == [{}, {"weight": 2}]
    _, records = run_rounds(FedAvg(), devices, num_rounds=2, weight_limit=0.0)
    assert [record.failures for record in records] == [{}, {}]


def test_an_honest_fleet_of_1_to_100_examples_counts_as_a_whole() -> None:
    """To the bit what it is without a limit: nothing is rescaled."""
    counts = dict(zip(DEVICES, (1, 1, 1, 1, 50, 100), strict=True))

    def honest(name: str):
        return with_metrics(lambda _, m: {**m, "num-examples": counts[name]}, name)

    devices = {name: honest(name) for name in DEVICES}
    limited, records = run_rounds(FedAvg(), devices)
    free, unlimited = run_rounds(FedAvg(), devices, weight_limit=0.0)
    assert all(not record.failures for record in records)
    np.testing.assert_array_equal(weights_of(limited.arrays), weights_of(free.arrays))
    assert [r.evaluate for r in records] == [r.evaluate for r in unlimited]


def lying(loss: float):
    def lie(command: Command, metrics: dict[str, Any]) -> dict[str, Any]:
        return {**metrics, "loss": loss} if command.kind == "evaluate" else metrics

    return with_metrics(lie)


@pytest.mark.parametrize("loss", [-1e9, 1e9, -1e199])
def test_a_lie_about_an_evaluation_is_reported_and_decides_nothing(loss: float) -> None:
    """It meets no target, and the best round is that of the others."""
    _, records = run_rounds(FedAvg(), {**GOOD, "d0": lying(loss)}, metric="loss", target=0.01)
    assert len(records) == 3, "the target was not reached"
    assert all(abs(record.evaluate["loss"]) > 1e6 for record in records)
    assert all(0 < record.robust["loss"] < 3 for record in records)
    assert [record.outliers for record in records] == [{"loss": ["d0"]}] * 3


def test_an_honest_run_decides_by_what_it_reports() -> None:
    _, records = clean()
    for record in records:
        assert record.robust["loss"] == pytest.approx(record.evaluate["loss"], rel=1e-9)
        assert record.outliers == {}
