"""Several calls of ``Strategy.start`` in one app, and what a successor of its server resumes."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from fakes.objects import MemoryObjects
from fakes.runs import GOOD, grid_of, initial, spec
from flwr.serverapp.strategy import FedAdagrad, FedAvg

from fl_runtime.run.records import RoundRecord
from fl_runtime.server.grid.flower_compat import round_loop
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.rounds.checkpoints import Checkpoint
from fl_runtime.server.rounds.round_loop import RoundLoop
from fl_runtime.server.rounds.starts import Resumed

ROUNDS = 2


class KilledError(Exception):
    pass


class Run:
    """What outlives a server: its rounds, its last checkpoint and the weights."""

    def __init__(self) -> None:
        self.objects = MemoryObjects()
        self.records: dict[int, RoundRecord] = {}
        self.checkpoint: Checkpoint | None = None
        self.trained = 0

    def serve(self, kill_after: int = 99) -> tuple[Any, Any]:
        """An app of two calls; the server dies once it has committed so many rounds."""

        def record(done: RoundRecord, checkpoint: Checkpoint | None) -> None:
            self.records[done.round], self.checkpoint = done, checkpoint
            self.trained += 1
            if self.trained == kill_after:
                raise KilledError

        def resume() -> Resumed | None:
            last = self.checkpoint
            known = [self.records[number] for number in sorted(self.records)]
            return Resumed(last, known) if last is not None else None

        the_spec = spec()
        random.seed(0)
        loop = RoundLoop(the_spec, record, lambda: False, resume)
        grid = grid_of(GOOD, the_spec, objects=self.objects)
        with round_loop(IoTGrid, loop):
            first = FedAvg().start(grid=grid, initial_arrays=initial(), num_rounds=ROUNDS)
            second = FedAdagrad(eta=0.05).start(
                grid=grid, initial_arrays=first.arrays, num_rounds=ROUNDS
            )
        self.finished = loop.finished
        return first, second


@pytest.fixture(scope="module")
def undisturbed() -> tuple[Run, Any, Any]:
    run = Run()
    return run, *run.serve()


def test_each_call_of_start_runs_its_rounds(undisturbed: tuple[Run, Any, Any]) -> None:
    run, first, second = undisturbed
    assert [(r.round, r.start) for r in run.records.values()] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert set(first.evaluate_metrics_clientapp) == set(second.evaluate_metrics_clientapp) == {1, 2}
    assert not np.array_equal(first.arrays["w"].numpy(), second.arrays["w"].numpy())
    assert run.finished.final_round == 4
    assert run.finished.result is second


@pytest.mark.parametrize("kill_after", [1, 2, 3, 4])
def test_a_successor_goes_on_in_the_call_where_the_server_died(
    undisturbed: tuple[Run, Any, Any], kill_after: int
) -> None:
    whole, *expected = undisturbed
    run = Run()
    with pytest.raises(KilledError):
        run.serve(kill_after)
    found = run.serve()
    assert run.trained == 4, "no round was run twice"
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.arrays["w"].numpy(), theirs.arrays["w"].numpy())
        assert ours.evaluate_metrics_clientapp == theirs.evaluate_metrics_clientapp
        assert ours.train_metrics_clientapp == theirs.train_metrics_clientapp
    assert [r.start for r in run.records.values()] == [r.start for r in whole.records.values()]
