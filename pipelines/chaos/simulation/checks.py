"""What must hold after a simulated run. Each violation is one sentence."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge.protocol.records import decode_records
from edge.typed import from_json
from fl_runtime.run.keys import model_key, round_key
from fl_runtime.run.records import RoundRecord
from fl_runtime.server.rounds.quorum import TRANSIENT
from pipelines.chaos.devices.behaviours import HARMLESS
from pipelines.chaos.invariants import TOLERANCE, check_rounds, federated_mean
from pipelines.chaos.simulation.cloud import SimulatedCloud

SIZE = 300
"""Weights of the simulated model."""


@dataclass(frozen=True, kw_only=True)
class End:
    """How a simulated run ended."""

    answer: tuple[str, str] | None
    run: str
    rounds: int
    trained: list[tuple[str, str]]
    """(device, message) of each training of an honest device."""
    boots: dict[str, int]
    """How often each device has started."""


def violations(cloud: SimulatedCloud, end: End) -> Iterator[str]:
    """All violations."""
    if end.answer is None:
        yield "the run did not end"
        return
    if end.answer[0] != "Succeeded":
        yield f"the run ended as {end.answer}"
    try:
        rounds = [_record(cloud, end.run, number) for number, _, _ in cloud.commits]
    except KeyError as missing:
        yield f"a finished round is lost: {missing}"
        return
    yield from check_rounds(rounds, end.answer[0])
    yield from _check_counted(cloud, rounds)
    yield from _check_history(cloud, end)
    yield from _check_trained_once(end)
    if end.answer[0] == "Succeeded":
        yield from _check_model(cloud, end.run, rounds)


def _record(cloud: SimulatedCloud, run: str, number: int) -> RoundRecord:
    return from_json(cloud.objects[round_key(run, number)], type=RoundRecord)


def _check_model(cloud: SimulatedCloud, run: str, rounds: list[RoundRecord]) -> Iterator[str]:
    """The final model is what the counted updates give, computed once more."""
    weights = np.zeros(SIZE, np.float32)
    for record in rounds:
        trained = [row for row in record.devices if row.kind == "train" and row.status == "ok"]
        weights = federated_mean(weights, [int(row.device.split("-")[1]) for row in trained])
    records = decode_records(cloud.objects[model_key(run, "model.safetensors")])
    found = next(iter(records.arrays.values()))["w"]
    distance = float(np.abs(found - weights).max())
    if not distance <= TOLERANCE:  # also for NaN
        yield f"the final model is {distance:.3g} away from what the updates that counted give"


def _check_counted(cloud: SimulatedCloud, rounds: list[RoundRecord]) -> Iterator[str]:
    """Nothing of a harmful device counts, and an honest one is refused for nothing that it did."""
    hostile = {f"sim-{index}": name for index, name in cloud.weather.hostile.items()}
    for record in rounds:
        for row in record.devices:
            behaviour = hostile.get(row.device, "")
            counted = row.kind == "train" and row.status == "ok"
            if counted and behaviour and behaviour not in HARMLESS:
                yield f"{row.device} ({behaviour}) counted in round {record.round}"
            if not behaviour and row.status == "error" and row.code not in TRANSIENT:
                yield f"{row.device} is honest, and was refused in {row.phase}: {row.code}"


def _check_history(cloud: SimulatedCloud, end: End) -> Iterator[str]:
    """MLflow has each finished round, once."""
    counts = collections.Counter(number for number, _ in cloud.logged)
    if twice := sorted(number for number, count in counts.items() if count > 1):
        yield f"MLflow has the rounds {twice} more than once"
    committed = {number for number, _, _ in cloud.commits}
    if end.answer is not None and end.answer[0] == "Succeeded" and set(counts) != committed:
        yield f"MLflow has the rounds {sorted(counts)} of {sorted(committed)}"


def _check_trained_once(end: End) -> Iterator[str]:
    """A device trains once for a message, and once more at most after each of its ends."""
    for (device, message), count in collections.Counter(end.trained).items():
        if count > end.boots[device]:
            yield f"{device} trained {count} times for {message}"
