"""A server that dies anywhere is started again, goes on at the last finished round, and ends with
the same model.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from fakes.clock import ThreadClock
from fakes.fleet import MemoryFleet
from fakes.objects import MemoryObjects
from fakes.runs import DEVICES, client, initial, spec
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
from hypothesis import given
from hypothesis import strategies as st

from edge.protocol.records import Records
from edge.training.flower_compat import set_identity
from fl_runtime.cohort.runner import CohortRunner
from fl_runtime.run.cohorts import form_cohorts
from fl_runtime.run.errors import RunFailed
from fl_runtime.server.flower_compat import round_loop
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.grid.phases import PhaseExecutor
from fl_runtime.server.rounds.checkpoints import CheckpointStore, decode, encode, restore, take
from fl_runtime.server.rounds.round_loop import Resumed, RoundLoop
from fl_runtime.server.rounds.strategies import build

ROUNDS = 3


class Killed(BaseException):
    """The server is killed here."""


class World:
    """What outlives a server: objects, the devices and their replies, the committed checkpoint."""

    def __init__(self, name: str, parameters: dict[str, Any]) -> None:
        self.name, self.parameters = name, parameters
        self.objects = MemoryObjects()
        self.trained: list[str] = []
        self.fleet = MemoryFleet(self.objects, {d: self._device(d) for d in DEVICES})
        self.answers: dict[tuple[str, str], Any] = {}
        self.records: dict[int, Any] = {}
        self.committed = ""
        self.steps = 0
        self.killed_at = -1

    def _device(self, device: str):
        """A device that answers a repeated command from memory, as the agent does."""

        def answer(command, content):
            key = (device, command.message_id)
            if key not in self.answers:
                self.trained.append(command.message_id)
                self.answers[key] = client(device)(command, content)
            return self.answers[key]

        return answer

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.killed_at:
            raise Killed

    def serve(self) -> ArrayRecord:
        """One server's life, from its start to its end or its death."""
        world = self

        class Objects(MemoryObjects):
            def __init__(self) -> None:
                self.data, self.puts = world.objects.data, world.objects.puts

            def put(self, key: str, data: bytes) -> None:
                world.step()
                super().put(key, data)
                world.step()

        class Fleet:
            def send(self, *arguments: Any) -> None:
                world.step()
                world.fleet.send(*arguments)

            def read(self, key: str) -> Any:
                world.step()
                return world.fleet.read(key)

        objects, clock, fleet = Objects(), ThreadClock(), Fleet()
        set_identity(1, 1)
        random.seed(0)
        # with spares, who answers first counts
        the_spec = spec(num_rounds=ROUNDS, over_selection=1.0)
        store = CheckpointStore(objects, the_spec.run)

        def record(done: Any, checkpoint: Any) -> None:
            names = store.save(checkpoint)
            self.step()
            self.committed = names
            self.records[done.round] = done
            self.step()

        def resume() -> Resumed | None:
            checkpoint = store.load(self.committed)
            return (
                Resumed(checkpoint, [self.records[n] for n in range(1, checkpoint.round + 1)])
                if checkpoint
                else None
            )

        grid = IoTGrid(
            PhaseExecutor(
                the_spec,
                form_cohorts("f", DEVICES, 100),
                CohortRunner(fleet, fleet, objects, clock=clock, sleep=clock.sleep),
                objects,
                clock=clock,
                signer=lambda text: "signed",
            )
        )
        loop = RoundLoop(the_spec, record, lambda: False, resume)
        with round_loop(IoTGrid, loop):
            result = build(self.name, self.parameters, 6).start(grid=grid, initial_arrays=initial())
        assert set(result.evaluate_metrics_clientapp) == set(range(1, ROUNDS + 1)), (
            "the history is whole"
        )
        return result.arrays


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("FedAvg", {"fraction_train": 0.5}),
        ("FedAdam", {"eta": 0.05}),
        ("FedAvgM", {"server_momentum": 0.9}),
        ("FedMedian", {}),
    ],
)
def test_killed_after_any_step_the_final_model_is_the_same(name: str, parameters: dict) -> None:
    undisturbed = World(name, parameters)
    expected = undisturbed.serve()["w"].numpy()
    assert undisturbed.steps > 40
    for step in range(1, undisturbed.steps + 1):
        world = World(name, parameters)
        world.killed_at = step
        try:
            world.serve()
        except Killed:
            world.killed_at = -1
            finished = len(world.records)
            arrays = world.serve()
            assert len(world.records) == ROUNDS
            np.testing.assert_array_equal(
                arrays["w"].numpy(),
                expected,
                err_msg=f"killed at step {step}, after {finished} rounds",
            )
            assert sorted(set(world.trained)) == sorted(world.trained), (
                "no device trains for the same message twice"
            )
            assert sorted(world.trained) == sorted(undisturbed.trained), (
                "nor for another than it would have"
            )


def test_a_damaged_checkpoint_is_found_out_and_the_one_before_is_used() -> None:
    world = World("FedAdam", {"eta": 0.05})
    expected = world.serve()["w"].numpy()
    newest, before = (
        next(key for key in world.objects.data if name in key)
        for name in world.committed.split(",")
    )
    world.objects.data[newest] = world.objects.data[newest][:-1] + b"\x00"
    np.testing.assert_array_equal(world.serve()["w"].numpy(), expected)
    assert world.committed.split(",")[1] in before, (
        "the damaged one is not counted among the last two"
    )
    for key in (newest, before):
        world.objects.data.pop(key)
    np.testing.assert_array_equal(world.serve()["w"].numpy(), expected)


def test_a_checkpoint_of_another_model_is_refused() -> None:
    checkpoint = take(1, 2, {"other": np.zeros(3)}, FedAvg())
    with pytest.raises(RunFailed, match="another model"):
        restore(checkpoint, {"w": np.zeros(3)}, FedAvg())


def test_wrapped_strategies_keep_their_state() -> None:
    wrapped = DifferentialPrivacyServerSideFixedClipping(build("FedAdam", {}, 6), 0.5, 1.0, 6)
    wrapped.strategy.m_t = {"w": np.arange(3.0)}
    wrapped.clipping_norm = 0.25
    fresh = DifferentialPrivacyServerSideFixedClipping(build("FedAdam", {}, 6), 0.5, 1.0, 6)
    model = {"w": np.zeros(3, np.float32)}
    restore(decode(encode(take(1, 2, model, wrapped))), model, fresh)
    np.testing.assert_array_equal(fresh.strategy.m_t["w"], np.arange(3.0))
    assert fresh.clipping_norm == 0.25


@given(
    st.integers(1, 10**6),
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5),
    st.integers(0, 2**32),
)
def test_a_checkpoint_survives_storage(number: int, values: list[float], seed: int) -> None:
    random.seed(seed)
    strategy = build("FedAvgM", {"server_momentum": 0.5}, 2)
    strategy.momentum_vector = [np.array(values), np.array(2.0)]
    strategy.current_arrays = ArrayRecord({"w": Array(np.array(values))})
    checkpoint = take(number, 3, {"w": np.array(values, np.float32)}, strategy)
    expected = [random.random() for _ in range(5)]
    random.seed(0)
    fresh = build("FedAvgM", {}, 2)
    restore(decode(encode(checkpoint)), {"w": np.zeros(len(values))}, fresh)
    assert [random.random() for _ in range(5)] == expected
    assert decode(encode(checkpoint)).round == number
    np.testing.assert_array_equal(fresh.momentum_vector[0], values)
    np.testing.assert_array_equal(fresh.current_arrays["w"].numpy(), values)
    assert fresh.server_momentum == 0.5
    assert isinstance(checkpoint.state, Records)
