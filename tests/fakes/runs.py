"""Federated runs in memory: deterministic clients, the grid and the round loop over them."""

from __future__ import annotations

import random

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import Strategy

from edge.protocol.messages import Command, Reply
from edge.protocol.records import Records
from edge.training.flower_compat import set_identity
from fakes.clock import Clock, ThreadClock
from fakes.fleet import MemoryFleet
from fakes.objects import MemoryObjects
from fl_runtime.cohort.runner import CohortRunner
from fl_runtime.run.cohorts import form_cohorts
from fl_runtime.run.records import DeviceRow, RoundBytes, RoundRecord, RoundSeconds
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.grid.flower_compat import round_loop
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.grid.phases import PhaseExecutor
from fl_runtime.server.rounds.round_loop import RoundLoop

DEVICES = [f"d{i}" for i in range(6)]


def initial() -> ArrayRecord:
    return ArrayRecord(
        {"w": Array(np.linspace(0, 1, 5, dtype=np.float32)), "n": Array(np.array(3, np.int64))}
    )


def training_device(device: str):
    """A deterministic device: pulls the weights towards a point of its own."""
    index = DEVICES.index(device)

    def answer(command: Command, content: Records) -> Records:
        w = content.arrays["arrays"]["w"]
        target = np.full(5, index, np.float32)
        metrics = {
            "loss": float(np.abs(w - target).mean()),
            "train_loss": float(index + 1),
            "num-examples": 10 * (index + 1),
        }
        if command.kind == "evaluate":
            return Records(metrics={"metrics": metrics})
        return Records(
            arrays={
                "arrays": {
                    "w": (w + 0.3 * (target - w)).astype(np.float32),
                    "n": np.array(index, np.int64),
                }
            },
            metrics={"metrics": metrics},
        )

    return answer


def spec(**changes: object) -> RunSpec:
    fields = {
        "run": "run-1",
        "fleet": "f",
        "app": "a" * 64,
        "app_name": "x",
        "num_rounds": 3,
        "min_devices": 1,
        "phase_seconds": 5.0,
    }
    return RunSpec(**{**fields, **changes})


def grid_of(
    devices: dict,
    the_spec: RunSpec,
    per_proxy: int = 2,
    *,
    phase_clock: Clock | None = None,
    objects: MemoryObjects | None = None,
) -> IoTGrid:
    """A grid over in-memory devices. ``phase_clock`` measures phases; default: the fleet's own."""
    objects, clock = objects or MemoryObjects(), ThreadClock()
    fleet = MemoryFleet(objects, devices)
    set_identity(1, 1)
    runner = CohortRunner(fleet, fleet, objects, clock=clock, sleep=clock.sleep)
    cohorts = form_cohorts("f", list(devices), per_proxy)
    return IoTGrid(
        PhaseExecutor(
            the_spec,
            cohorts,
            runner,
            objects,
            clock=phase_clock or clock,
            signer=lambda text: "signed",
        )
    )


def run_rounds(given: Strategy, devices: dict, per_proxy: int = 2, **changes: object):
    """Run a strategy under our round loop: (its result, the records of its rounds)."""
    the_spec, records = spec(**changes), []
    random.seed(0)
    loop = RoundLoop(the_spec, lambda record, checkpoint: records.append(record), lambda: False)
    with round_loop(IoTGrid, loop):
        result = given.start(
            grid=grid_of(devices, the_spec, per_proxy),
            initial_arrays=initial(),
            num_rounds=the_spec.num_rounds,
        )
    return result, records


GOOD = {d: training_device(d) for d in DEVICES}


def failing(code: str = "worker-died", times: int = 10**6):
    """A device that fails the first ``times`` commands, and then works."""
    left = [times]

    def device(command: Command, content: Records) -> Records | Reply:
        if left[0] > 0:
            left[0] -= 1
            return Reply(
                run=command.run,
                phase=command.phase,
                message_id=command.message_id,
                status="error",
                code=code,
                reason="no",
            )
        return training_device("d0")(command, content)

    return device


def row(device: str, status: str = "ok", kind: str = "train", norm: float = 0.0) -> DeviceRow:
    return DeviceRow(
        round=1,
        phase="p",
        kind=kind,
        device=device,
        status=status,
        code="",
        reason="",
        digest="",
        seconds_fetch=0,
        seconds_work=0,
        seconds_upload=0,
        bytes_up=0,
        bytes_down=0,
        metrics={},
        norm=norm,
    )


def record(number: int, *rows: DeviceRow, seconds: float = 1.0, **evaluate: float) -> RoundRecord:
    return RoundRecord(
        round=number,
        train={},
        evaluate=evaluate,
        server={},
        participants=len(rows),
        failures={},
        seconds=RoundSeconds(total=seconds),
        bytes=RoundBytes(),
        devices=list(rows),
        model="m" * 64,
    )
