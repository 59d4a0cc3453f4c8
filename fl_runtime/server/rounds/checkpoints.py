"""A run's state after each round, so that another server can go on where one died.

A checkpoint holds what round records cannot give: the weights, the strategy's own state and the
random state; and the round's own record, which counts together with it. It counts once the ``runs``
table names it; anything written before may be written again. Its object key holds its digest, so a
damaged checkpoint is detected and the one before it is used.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from flwr.serverapp.strategy import Strategy

from edge.logs import event
from edge.protocol.errors import ProtocolError
from edge.protocol.records import (
    ArrayMap,
    Records,
    ValueMap,
    decode_records,
    digest,
    encode_records,
)
from edge.protocol.text import parse_json, printable
from fl_runtime.run.errors import ObjectMissing, RunFailed
from fl_runtime.run.keys import checkpoint_key
from fl_runtime.run.messages import array_specs
from fl_runtime.run.ports import ObjectStore
from fl_runtime.server.grid.weights import WeightStore
from fl_runtime.server.rounds.strategy_state import read_state, restore_state

logger = logging.getLogger(__name__)

_MODEL, _META, _RECORD = "model", "checkpoint", "round-record"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a run after ``round``."""

    round: int
    sequence: int
    """Number of phases so far: resumed phases keep their names."""
    arrays: ArrayMap
    """The model."""
    random_state: str
    """Of Python's ``random``, as JSON."""
    state: Records
    """The strategy's."""
    record: bytes = b""
    """The round's record, encoded; empty in a checkpoint of version 0.4."""
    model: str = ""
    """Digest of the model's object, which holds the arrays; empty where the checkpoint does, as in
    version 0.4.
    """


def take(number: int, sequence: int, arrays: ArrayMap, strategy: Strategy) -> Checkpoint:
    """A checkpoint of this moment."""
    return Checkpoint(
        round=number,
        sequence=sequence,
        arrays=arrays,
        random_state=msgspec.json.encode(random.getstate()).decode(),
        state=read_state(strategy),
    )


def restore(checkpoint: Checkpoint, initial: ArrayMap | None, strategy: Strategy) -> None:
    """Restore the strategy and the random state. ``initial``: None allows another layout.

    Raises:
        RunFailed: the checkpoint's model has not the layout of the app's ``initial`` one.
    """
    # Dtypes are not compared: the round loop restores them anyway.
    saved = {(spec.name, spec.shape) for spec in array_specs(checkpoint.arrays)}
    if initial is not None and saved != {(spec.name, spec.shape) for spec in array_specs(initial)}:
        raise RunFailed(
            "checkpoint",
            "The run's checkpoint is of another model: its array names or shapes are not those "
            "of the app.",
        )
    _set_random_state(random, checkpoint.random_state)
    restore_state(strategy, checkpoint.state)


def _set_random_state(generator: Any, text: str) -> None:
    """Bring Python's ``random``, or a generator of its kind, into a recorded state.

    Raises:
        ProtocolError: it is no JSON.
        ValueError, TypeError or OverflowError: it is no state.
    """
    kind = tuple[int, list[int], float | None]
    state: tuple[int, list[int], float | None] = parse_json(text, kind, "The random state")
    version, internal, gauss = state
    generator.setstate((version, tuple(internal), gauss))


def encode(checkpoint: Checkpoint) -> bytes:
    """The checkpoint as one records file."""
    meta: ValueMap = {
        "round": checkpoint.round,
        "sequence": checkpoint.sequence,
        "random": checkpoint.random_state,
    }
    if checkpoint.model:
        meta["model"] = checkpoint.model
    # As an array: the records of a large fleet would not fit a file's header.
    record: ArrayMap = {"json": np.frombuffer(checkpoint.record, np.uint8)}
    return encode_records(
        Records(
            arrays={
                _MODEL: {} if checkpoint.model else checkpoint.arrays,
                _RECORD: record,
                **checkpoint.state.arrays,
            },
            configs={_META: meta, **checkpoint.state.configs},
        )
    )


def decode(blob: bytes) -> Checkpoint:
    """The inverse of :func:`encode`; raises ProtocolError."""
    records = decode_records(blob)
    try:
        meta, arrays = records.configs.pop(_META), records.arrays.pop(_MODEL)
        record = records.arrays.pop(_RECORD, {}).get("json", np.empty(0, np.uint8))
        _set_random_state(random.Random(), str(meta["random"]))  # noqa: S311  # only tried
        return Checkpoint(
            round=int(str(meta["round"])),
            sequence=int(str(meta["sequence"])),
            arrays=arrays,
            random_state=str(meta["random"]),
            state=Records(arrays=records.arrays, configs=records.configs),
            record=record.tobytes(),
            model=str(meta.get("model", "")),
        )
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        reason = printable(f"{type(error).__name__} {error}", 300)
        raise ProtocolError("malformed", f"The checkpoint is malformed: {reason}") from error


class CheckpointStore:
    """A run's checkpoints in the object store.

    The ``runs`` table names the last two, newest first, joined by a comma.
    """

    KEPT = 2

    def __init__(self, objects: ObjectStore, run: str) -> None:
        self._objects = objects
        self._run = run
        self._weights = WeightStore(objects, run)
        self._names: list[str] = []
        self._superseded: list[str] = []

    def save(self, checkpoint: Checkpoint) -> str:
        """Write a checkpoint; returns the names that the ``runs`` table is to hold."""
        blob = encode(checkpoint)
        name = f"{checkpoint.round:05d}-{digest(blob)}"
        self._objects.put(checkpoint_key(self._run, name), blob)
        names = [name, *(known for known in self._names if known != name)]
        self._names, dropped = names[: self.KEPT], names[self.KEPT :]
        self._superseded += dropped
        return ",".join(self._names)

    def discard_superseded(self) -> None:
        """Delete the checkpoints that the ``runs`` table no longer names, once it names others."""
        for name in self._superseded:
            self._objects.discard(checkpoint_key(self._run, name))
        self._superseded = []

    def load(self, names: str) -> Checkpoint | None:
        """The newest of the named checkpoints that is intact, or None."""
        # Names begin with the round's number: sorted backwards, the newest comes first.
        self._names = sorted(filter(None, names.split(",")), reverse=True)
        while self._names:
            name = self._names[0]
            try:
                return self._read(name)
            except (ProtocolError, ObjectMissing) as error:
                event(
                    logger,
                    "checkpoint-damaged",
                    logging.ERROR,
                    run=self._run,
                    checkpoint=name,
                    reason=str(error),
                )
                self._names.pop(0)
        return None

    def _read(self, name: str) -> Checkpoint:
        blob = self._objects.get(checkpoint_key(self._run, name))
        if digest(blob) != name.partition("-")[2]:
            raise ProtocolError("bad-digest", "its digest is not the one in its name")
        found = decode(blob)
        return replace(found, arrays=self._weights.load(found.model)) if found.model else found
