"""Committed rounds, and where the next server of a run goes on."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from fakes.objects import MemoryObjects
from fakes.run_table import MemoryRunTable
from fakes.runs import record, row, spec
from flwr.serverapp.strategy import FedAvg
from msgspec.structs import replace

from fl_runtime.run.errors import RunFailed
from fl_runtime.run.keys import arrays_key, round_key, spec_key
from fl_runtime.run.state import RunState
from fl_runtime.server.grid.weights import WeightStore
from fl_runtime.server.journal import RoundJournal, read_round
from fl_runtime.server.resume import resume_point
from fl_runtime.server.rounds.checkpoints import CheckpointStore, take


class Place:
    """A run's journal and checkpoints."""

    def __init__(self, objects: MemoryObjects, runs: MemoryRunTable, run: str) -> None:
        self.objects, self.runs, self.run = objects, runs, run
        self.checkpoints = CheckpointStore(objects, run)
        self.journal = RoundJournal(objects, runs, self.checkpoints, run)
        runs.create(RunState(run=run, state="Running"))
        self.epoch = runs.take_over(run)

    def commit(self, number: int, device: str = "d0") -> None:
        arrays = {"w": np.full(2, number)}
        checkpoint = take(number, number * 2, arrays, FedAvg())
        model = WeightStore(self.objects, self.run).save(arrays)
        done = replace(record(number, row(device)), model=model)
        self.journal.commit(done, checkpoint, self.epoch)

    def resume(self, **changes: object):
        the_spec = spec(run=self.run, **changes)
        return resume_point(the_spec, self.objects, self.runs, self.checkpoints, self.journal)


@pytest.fixture
def place() -> Place:
    return Place(MemoryObjects(), MemoryRunTable(), "run-1")


def test_a_committed_round_can_be_read_and_is_where_the_run_goes_on(place: Place) -> None:
    assert place.resume() is None, "a run that starts anew"
    place.commit(1)
    place.commit(2)
    resumed = place.resume()
    assert (resumed.checkpoint.round, resumed.checkpoint.sequence) == (2, 4)
    assert resumed.checkpoint.arrays["w"].tolist() == [2, 2]
    assert [done.round for done in resumed.rounds] == [1, 2]
    assert read_round(place.objects, "run-1", 2) == resumed.rounds[1]


def test_a_checkpoint_whose_model_is_damaged_is_not_used(place: Place) -> None:
    place.commit(1)
    place.commit(2)
    newest = place.resume().checkpoint.model
    place.objects.data[arrays_key("run-1", newest)] = b"damaged"
    assert place.resume().checkpoint.round == 1


@pytest.mark.parametrize("how", ["replaced", "ended"])
def test_a_round_of_a_replaced_server_or_an_ended_run_does_not_count(
    place: Place, how: str
) -> None:
    place.commit(1)
    if how == "replaced":
        place.runs.take_over("run-1")
    else:
        place.runs.update("run-1", state="Stopped")
    with pytest.raises(RunFailed, match="while round 2 was under way") as raised:
        place.commit(2)
    assert raised.value.code == "fenced"
    assert place.resume().checkpoint.round == 1


def test_rounds_of_a_continued_run_become_the_runs_own(place: Place) -> None:
    place.commit(1)
    place.runs.update("run-1", state="Failed")
    place.objects.put(spec_key("run-1"), msgspec.json.encode(spec()))
    other = Place(place.objects, place.runs, "run-2")
    resumed = other.resume(resume_from="run-1")
    assert resumed.checkpoint.round == 1
    assert other.journal.read(1) == place.journal.read(1)


def test_a_server_that_was_replaced_leaves_its_successors_record_as_it_is(place: Place) -> None:
    successor = Place(place.objects, place.runs, "run-1")
    successor.commit(1, "d1")
    with pytest.raises(RunFailed, match="Another server took the run over"):
        place.commit(1, "d0")
    (device,) = place.journal.read(1).devices
    assert device.device == "d1"


def test_a_record_whose_server_died_before_it_was_written_comes_with_the_checkpoint(
    place: Place,
) -> None:
    place.commit(1)
    written = place.objects.data.pop(round_key("run-1", 1))
    place.runs.update("run-1", state="Failed")
    place.objects.put(spec_key("run-1"), msgspec.json.encode(spec()))
    other = Place(place.objects, place.runs, "run-2")
    assert [done.round for done in other.resume(resume_from="run-1").rounds] == [1]
    assert [done.round for done in place.resume().rounds] == [1]
    assert place.objects.data[round_key("run-1", 1)] == written
