"""A server that can be killed at any step, and what outlives it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from flwr.app import ArrayRecord

from edge.training.flower_compat import set_identity
from fakes.clock import ThreadClock
from fakes.fleet import MemoryFleet
from fakes.objects import MemoryObjects
from fakes.runs import DEVICES, initial, spec, training_device
from fl_runtime.cohort.runner import CohortRunner
from fl_runtime.run.cohorts import form_cohorts
from fl_runtime.server.grid.flower_compat import round_loop
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.grid.phases import PhaseExecutor
from fl_runtime.server.rounds.checkpoints import CheckpointStore
from fl_runtime.server.rounds.round_loop import RoundLoop
from fl_runtime.server.rounds.starts import Resumed
from fl_runtime.server.rounds.strategies import build

ROUNDS = 3


class Killed(BaseException):
    """The server is killed here."""


class KilledServer:
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
                self.answers[key] = training_device(device)(command, content)
            return self.answers[key]

        return answer

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.killed_at:
            raise Killed

    def serve(self) -> ArrayRecord:
        """One server's life, from its start to its end or its death."""
        outer = self

        class Objects(MemoryObjects):
            def __init__(self) -> None:
                self.data, self.puts = outer.objects.data, outer.objects.puts

            def put(self, key: str, data: bytes) -> None:
                outer.step()
                super().put(key, data)
                outer.step()

        class Fleet:
            def send(self, *arguments: Any) -> None:
                outer.step()
                outer.fleet.send(*arguments)

            def read(self, key: str) -> Any:
                outer.step()
                return outer.fleet.read(key)

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
            result = build(self.name, self.parameters, 6).start(
                grid=grid, initial_arrays=initial(), num_rounds=ROUNDS
            )
        assert set(result.evaluate_metrics_clientapp) == set(range(1, ROUNDS + 1)), (
            "the history is whole"
        )
        return result.arrays


def check_killed_at(name: str, parameters: dict[str, Any], steps: slice) -> None:
    """Kill a server at the given steps, a run each; its successor must end with the same model."""
    undisturbed = KilledServer(name, parameters)
    expected = undisturbed.serve()["w"].numpy()
    assert undisturbed.steps > 40
    for step in range(1, undisturbed.steps + 1)[steps]:
        server = KilledServer(name, parameters)
        server.killed_at = step
        try:
            server.serve()
        except Killed:
            server.killed_at = -1
            finished = len(server.records)
            arrays = server.serve()
            assert len(server.records) == ROUNDS
            message = f"killed at step {step}, after {finished} rounds"
            np.testing.assert_array_equal(arrays["w"].numpy(), expected, err_msg=message)
            assert len(set(server.trained)) == len(server.trained), (
                "no device trains twice for the same message"
            )
            assert sorted(server.trained) == sorted(undisturbed.trained), (
                "nor for a message that the undisturbed run does not send"
            )
