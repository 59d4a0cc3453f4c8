"""After each round: the model, the strategy's state and the random state, so that a server can go
on where one died.

A checkpoint counts once the ``runs`` table names it; everything before that write may be repeated.
Its
key holds its digest, so a damaged one is found out and the one before it is used.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from flwr.app import Array, ArrayRecord
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
from fl_runtime.run.errors import ObjectMissing, RunFailed
from fl_runtime.run.keys import checkpoint_key
from fl_runtime.run.messages import array_specs
from fl_runtime.run.ports import ObjectStore

logger = logging.getLogger(__name__)

_MODEL, _META, _SCALARS, _KINDS = "model", "checkpoint", "strategy-scalars", "strategy-kinds"
_STATE = "strategy:"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a run after ``round``. ``sequence`` is the grid's: resumed phases keep their
    names.
    """

    round: int
    sequence: int
    arrays: ArrayMap
    random_state: str
    state: Records


def take(number: int, sequence: int, arrays: ArrayMap, strategy: Strategy) -> Checkpoint:
    """A checkpoint of this moment."""
    return Checkpoint(
        round=number,
        sequence=sequence,
        arrays=arrays,
        random_state=msgspec.json.encode(random.getstate()).decode(),
        state=_state_of(strategy),
    )


def restore(checkpoint: Checkpoint, initial: ArrayMap, strategy: Strategy) -> None:
    """Put strategy and random state back; raises RunFailed when the model is another one."""
    came = {(s.name, s.shape) for s in array_specs(checkpoint.arrays)}
    if came != {(s.name, s.shape) for s in array_specs(initial)}:
        raise RunFailed(
            "checkpoint",
            "The run's checkpoint is of another model: its array names or shapes are not those of the app.",
        )
    version, internal, gauss = msgspec.json.decode(checkpoint.random_state)
    random.setstate((version, tuple(internal), gauss))
    _put_back(strategy, checkpoint.state)


def encode(checkpoint: Checkpoint) -> bytes:
    """One records file."""
    meta: ValueMap = {
        "round": checkpoint.round,
        "sequence": checkpoint.sequence,
        "random": checkpoint.random_state,
    }
    return encode_records(
        Records(
            arrays={_MODEL: checkpoint.arrays, **checkpoint.state.arrays},
            configs={_META: meta, **checkpoint.state.configs},
        )
    )


def decode(blob: bytes) -> Checkpoint:
    """The inverse of :func:`encode`; raises ProtocolError."""
    records = decode_records(blob)
    try:
        meta, arrays = records.configs.pop(_META), records.arrays.pop(_MODEL)
        return Checkpoint(
            round=int(str(meta["round"])),
            sequence=int(str(meta["sequence"])),
            arrays=arrays,
            random_state=str(meta["random"]),
            state=Records(arrays=records.arrays, configs=records.configs),
        )
    except (KeyError, ValueError) as error:
        raise ProtocolError("malformed", f"The checkpoint lacks {error}.") from error


class CheckpointStore:
    """A run's checkpoints in the object store. The last two are named by the ``runs`` table, as one
    string.
    """

    KEPT = 2

    def __init__(self, objects: ObjectStore, run: str) -> None:
        self._objects = objects
        self._run = run
        self._names: list[str] = []

    def save(self, checkpoint: Checkpoint) -> str:
        """Write it; returns what the ``runs`` table is to hold, for :meth:`load`."""
        blob = encode(checkpoint)
        name = f"{checkpoint.round:05d}-{digest(blob)}"
        self._objects.put(self._key(name), blob)
        self._names = [name, *self._names][: self.KEPT]
        return ",".join(self._names)

    def load(self, names: str) -> Checkpoint | None:
        """The newest of the named checkpoints that is whole; None when there is none."""
        self._names = sorted(filter(None, names.split(",")), reverse=True)
        while self._names:
            name = self._names[0]
            try:
                blob = self._objects.get(self._key(name))
                if digest(blob) != name.partition("-")[2]:
                    raise ProtocolError("bad-digest", "its digest is not the one in its name")
                return decode(blob)
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

    def _key(self, name: str) -> str:
        return checkpoint_key(self._run, name)


def _state_of(strategy: Strategy, path: str = "") -> Records:
    """Arrays and plain values among a strategy's attributes; a wrapped strategy's below its name."""
    arrays: dict[str, ArrayMap] = {}
    scalars: ValueMap = {}
    kinds: ValueMap = {}
    for name, value in vars(strategy).items():
        place = path + name
        if isinstance(value, Strategy):
            inner = _state_of(value, f"{place}.")
            arrays.update(inner.arrays)
            scalars.update(inner.configs[_SCALARS])
            kinds.update(inner.configs[_KINDS])
        elif isinstance(value, bool | int | float | str):
            scalars[place] = value
        elif (packed := _pack(value)) is not None:
            kinds[place], arrays[_STATE + place] = packed
    return Records(arrays=arrays, configs={_SCALARS: scalars, _KINDS: kinds})


def _pack(value: Any) -> tuple[str, ArrayMap] | None:
    """(kind, arrays) of an attribute that holds arrays, such as Adam's moments; None for anything
    else.
    """
    if isinstance(value, ArrayRecord):
        return "record", {key: array.numpy() for key, array in value.items()}
    # numpy turns an array without dimensions into a scalar (np.generic) as soon as one computes
    # with it.
    if (
        isinstance(value, dict)
        and value
        and all(isinstance(item, np.ndarray | np.generic) for item in value.values())
    ):
        return "dict", {key: np.asarray(item) for key, item in value.items()}
    if (
        isinstance(value, list)
        and value
        and all(isinstance(item, np.ndarray | np.generic) for item in value)
    ):
        return "list", {str(index): np.asarray(item) for index, item in enumerate(value)}
    return None


def _put_back(strategy: Strategy, state: Records) -> None:
    for place, value in state.configs[_SCALARS].items():
        holder, name = _holder(strategy, place)
        setattr(holder, name, value)
    for place, kind in state.configs[_KINDS].items():
        arrays = {key: np.array(array) for key, array in state.arrays[_STATE + place].items()}
        holder, name = _holder(strategy, place)
        if kind == "record":
            setattr(holder, name, ArrayRecord({key: Array(array) for key, array in arrays.items()}))
        else:
            setattr(holder, name, arrays if kind == "dict" else list(arrays.values()))


def _holder(strategy: Strategy, place: str) -> tuple[Any, str]:
    *outer, name = place.split(".")
    holder: Any = strategy
    for part in outer:
        holder = getattr(holder, part)
    return holder, name
