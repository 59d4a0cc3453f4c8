"""Where a run goes on: at its own last finished round, or at that of the run it continues."""

from __future__ import annotations

from edge.typed import from_json
from fl_runtime.run.errors import ObjectMissing, RunFailed
from fl_runtime.run.keys import spec_key
from fl_runtime.run.ports import ObjectStore
from fl_runtime.run.records import RoundRecord
from fl_runtime.run.spec import RunSpec, decode_spec
from fl_runtime.run.state import TERMINAL_STATES, RunTable
from fl_runtime.server.journal import RoundJournal, read_round
from fl_runtime.server.rounds.checkpoints import Checkpoint, CheckpointStore
from fl_runtime.server.rounds.starts import Resumed


def resume_point(
    spec: RunSpec,
    objects: ObjectStore,
    runs: RunTable,
    checkpoints: CheckpointStore,
    journal: RoundJournal,
) -> Resumed | None:
    """The checkpoint and the rounds to go on from; None for a run that starts anew.

    ``checkpoints`` and ``journal`` are the run's own. Rounds of a continued run are copied into
    the journal.

    Raises:
        RunFailed: the run to continue cannot be continued.
    """
    state = runs.get(spec.run)
    own = checkpoints.load(state.checkpoint if state is not None else "")
    if own is not None:
        journal.restore(own)
        return Resumed(own, [journal.read(number) for number in _until(own)])
    if not spec.resume_from:
        return None
    continued = _checkpoint_to_continue(spec, objects, runs)
    rounds = [
        _round_of(objects, spec.resume_from, number, continued) for number in _until(continued)
    ]
    for record in rounds:
        journal.write(record)
    return Resumed(continued, rounds)


def _until(checkpoint: Checkpoint) -> range:
    return range(1, checkpoint.round + 1)


def _round_of(objects: ObjectStore, run: str, number: int, checkpoint: Checkpoint) -> RoundRecord:
    """A round of another run. The last one's record comes with its checkpoint."""
    if number == checkpoint.round and checkpoint.record:
        return from_json(checkpoint.record, type=RoundRecord)
    return read_round(objects, run, number)


def _checkpoint_to_continue(spec: RunSpec, objects: ObjectStore, runs: RunTable) -> Checkpoint:
    """The last checkpoint of the run that ``spec`` continues."""
    run = spec.resume_from
    _check_same_app(spec, objects)
    state = runs.get(run)
    if state is not None and state.state not in TERMINAL_STATES:
        raise RunFailed(
            "checkpoint", f"The run {run} has not ended ({state.state}): stop it first."
        )
    names = state.checkpoint if state is not None else ""
    checkpoint = CheckpointStore(objects, run).load(names)
    if checkpoint is None:
        raise RunFailed(
            "checkpoint",
            f"The run {run} has no checkpoint that can be read: it finished no round, or ended "
            "over a month ago.",
        )
    return checkpoint


def _check_same_app(spec: RunSpec, objects: ObjectStore) -> None:
    run = spec.resume_from
    try:
        before = decode_spec(objects.get(spec_key(run)))
    except ObjectMissing as error:
        raise RunFailed("checkpoint", f"There is no run {run} to go on from.") from error
    if before.app != spec.app:
        raise RunFailed(
            "checkpoint",
            f"The run {run} was made by another app ({before.app_name} {before.app[:12]}): its "
            "checkpoint does not fit.",
        )
