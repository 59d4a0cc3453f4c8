"""The candidate and the champion are evaluated on the same devices, without changing the run."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from fakes.objects import MemoryObjects
from fakes.runs import DEVICES, GOOD, grid_of, initial, spec, training_device
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvg

from edge.protocol.messages import Reply
from edge.protocol.records import Records, encode_records
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.keys import champion_key
from fl_runtime.run.records import Comparison, RoundRecord
from fl_runtime.run.spec import Champion, RunSpec
from fl_runtime.server.grid.flower_compat import round_loop
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.rounds.champion import ChampionComparison, read_champion
from fl_runtime.server.rounds.round_loop import RoundLoop

CHAMPION = Champion(
    model_version="x/1", digest="c" * 64, app="a" * 64, key="runs/run-0/model/model.safetensors"
)
LABELS = {
    device: {"site": "north" if index < 4 else "south"} for index, device in enumerate(DEVICES)
}


def run(
    comparing: ChampionComparison, devices: dict = GOOD, **changes: Any
) -> tuple[RunSpec, list[RoundRecord], IoTGrid]:
    """A run over in-memory devices that ends with the comparison."""
    the_spec, records = spec(**{"num_rounds": 2, **changes}), []
    random.seed(0)
    grid = grid_of(devices, the_spec)
    for cohort in grid.phases.cohorts:
        cohort.members[:] = [
            msgspec.structs.replace(member, labels=LABELS[member.device])
            for member in cohort.members
        ]
    loop = RoundLoop(
        the_spec,
        lambda record, checkpoint: records.append(record),
        lambda: False,
        comparison=comparing,
    )
    with round_loop(IoTGrid, loop):
        FedAvg().start(grid=grid, initial_arrays=initial(), num_rounds=2)
        loop.compare()
    return the_spec, records, grid


def weights(value: float) -> dict:
    return {"w": np.full(5, value, np.float32), "n": np.array(3, np.int64)}


def compared(
    champion: float = 9.0, devices: dict = GOOD
) -> tuple[Comparison, RunSpec, list[RoundRecord]]:
    comparing = ChampionComparison(lambda: (CHAMPION, weights(champion)))
    the_spec, records, _ = run(comparing, devices)
    assert comparing.result is not None
    return comparing.result, the_spec, records


def test_both_models_are_evaluated_on_the_same_devices_with_the_same_data() -> None:
    comparison, _, records = compared(champion=9.0)
    assert {row.device for row in comparison.devices} == set(DEVICES)
    for row in comparison.devices:
        assert row.champion["loss"] == pytest.approx(9.0 - DEVICES.index(row.device))
        last = next(
            r for r in records[-1].devices if r.device == row.device and r.kind == "evaluate"
        )
        assert row.candidate == last.metrics
    assert comparison.round == 2
    assert comparison.bytes_down >= 0


def test_the_comparison_changes_nothing_of_the_run() -> None:
    results = []
    for comparing in (None, ChampionComparison(lambda: (CHAMPION, weights(9.0)))):
        the_spec = spec(num_rounds=3)
        random.seed(0)
        loop = RoundLoop(the_spec, lambda *_: None, lambda: False, comparison=comparing)
        with round_loop(IoTGrid, loop):
            results.append(
                FedAvg()
                .start(grid=grid_of(GOOD, the_spec), initial_arrays=initial(), num_rounds=3)
                .arrays
            )
            loop.compare()
    assert isinstance(results[0], ArrayRecord)
    assert all(
        np.array_equal(a.numpy(), b.numpy())
        for a, b in zip(results[0].values(), results[1].values(), strict=True)
    )


def test_without_a_champion_or_with_one_of_another_layout_the_reason_is_said() -> None:
    def lost() -> None:
        raise RunFailed(
            "champion", "The weights of the champion x/1 in S3 are not those that were approved."
        )

    for read, text in (
        (lambda: None, "no earlier version"),
        (lambda: (CHAMPION, {"other": np.zeros(2)}), "another layout"),
        (lost, "not those that were approved"),
    ):
        comparing = ChampionComparison(read)
        run(comparing)
        assert comparing.result is not None
        assert text in comparing.result.reason
        assert len(comparing.result.devices) == len(DEVICES)


def test_a_champion_that_was_changed_in_the_bucket_is_not_compared() -> None:
    objects = MemoryObjects()
    objects.put(champion_key("run-1"), b"null")
    assert read_champion(objects, "run-1") is None
    objects.put(champion_key("run-1"), msgspec.json.encode(CHAMPION))
    with pytest.raises(RunFailed, match="cannot be read"):
        read_champion(objects, "run-1")
    objects.put(CHAMPION.key, encode_records(Records(arrays={"arrays": weights(1.0)})))
    with pytest.raises(RunFailed, match="not those that were approved"):
        read_champion(objects, "run-1")


def test_a_device_that_cannot_evaluate_the_champion_says_why() -> None:
    def without(command: Any, content: Records) -> Records | Reply:
        if command.kind == "evaluate" and float(content.arrays["arrays"]["w"][0]) == 9.0:
            return Reply(
                run=command.run,
                phase=command.phase,
                message_id=command.message_id,
                status="error",
                code="app-error",
                reason="too old",
            )
        return training_device("d0")(command, content)

    comparison, _, _ = compared(devices={**GOOD, "d0": without})
    row = next(row for row in comparison.devices if row.device == "d0")
    assert (row.champion, row.reason) == ({}, "app-error: too old")
    assert row.candidate["loss"] > 0


def test_only_devices_that_evaluated_the_candidate_evaluate_the_champion() -> None:
    champions = []

    def broken(command: Any, content: Records) -> Records | Reply:
        if command.kind != "evaluate":
            return training_device("d0")(command, content)
        champions.append(float(content.arrays["arrays"]["w"][0]) == 9.0)
        return Reply(
            run=command.run,
            phase=command.phase,
            message_id=command.message_id,
            status="error",
            code="app-error",
            reason="no test set",
        )

    comparison, _, _ = compared(devices={**GOOD, "d0": broken})
    assert champions == [False, False], "once in each round"
    assert {row.device for row in comparison.devices} == set(DEVICES) - {"d0"}
