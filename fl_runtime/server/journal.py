"""Commits finished rounds, so that a server that dies loses at most the round under way."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from edge.typed import from_json
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.keys import round_key
from fl_runtime.run.ports import ObjectStore
from fl_runtime.run.records import RoundRecord
from fl_runtime.run.state import RunTable
from fl_runtime.server.rounds.checkpoints import Checkpoint, CheckpointStore


class RoundJournal:
    """The committed rounds of one run, written by one of its servers.

    The epoch is the server's number. Only the newest server of a run may commit rounds.
    """

    def __init__(
        self, objects: ObjectStore, runs: RunTable, checkpoints: CheckpointStore, run: str
    ) -> None:
        self._objects = objects
        self._runs = runs
        self._checkpoints = checkpoints
        self._run = run

    def commit(self, record: RoundRecord, checkpoint: Checkpoint | None, epoch: int) -> None:
        """Write the checkpoint, then the one item that makes the round count, then its record.

        The record comes last. A server that was paused and has been replaced would overwrite the
        record of its successor's round otherwise, before it is told that its own does not count.

        Raises:
            RunFailed: ``fenced``, when another server has taken the run over or the run has ended.
        """
        names = ""
        if checkpoint is not None:
            # If this server dies before it writes the record, its successor finds it there.
            # The model is an object already, which the next round sends.
            whole = replace(checkpoint, record=msgspec.json.encode(record), model=record.model)
            names = self._checkpoints.save(whole)
        if not self._runs.commit_round(self._run, epoch, record.round, names):
            raise RunFailed(
                "fenced",
                f"Another server took the run over, or it ended, while round {record.round} was "
                "under way.",
            )
        self.write(record)
        self._checkpoints.discard_superseded()

    def write(self, record: RoundRecord) -> None:
        """Write a round's record without committing the round."""
        self._objects.put(round_key(self._run, record.round), msgspec.json.encode(record))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Write the record that came with a checkpoint: its server may have died before it did."""
        if checkpoint.record:
            self._objects.put(round_key(self._run, checkpoint.round), checkpoint.record)

    def read(self, number: int) -> RoundRecord:
        """A committed round; raises ObjectMissing."""
        return read_round(self._objects, self._run, number)


def read_round(objects: ObjectStore, run: str, number: int) -> RoundRecord:
    """The record of a run's round; raises ObjectMissing."""
    return from_json(objects.get(round_key(run, number)), type=RoundRecord)
