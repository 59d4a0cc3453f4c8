"""A run's weights in the object store, each version uploaded once.

Objects are named by their digest, so what is stored of a round is what the next one sends, and a
device that has fetched it finds it in its cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from edge.protocol.messages import ObjectRef
from edge.protocol.records import (
    ArrayMap,
    Records,
    decode_records,
    digest,
    encode_records,
    encode_skeleton,
)
from fl_runtime.aggregation.mapped import release
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import arrays_key
from fl_runtime.run.messages import ArraySpec, array_specs
from fl_runtime.run.ports import ObjectStore

MODEL = "arrays"
"""The record key by which Flower's strategies send the model."""


@dataclass(frozen=True)
class PhaseContent:
    """What every device gets in one phase."""

    arrays: ObjectRef | None
    """The uploaded arrays; None when the message holds none."""
    specs: list[ArraySpec] | None
    """The arrays' layout, when there is exactly one array record."""
    skeleton: str
    """The message's other records, encoded."""

    @property
    def arrays_digest(self) -> str:
        """SHA-256 of the arrays' file; empty without arrays."""
        return self.arrays.digest if self.arrays else ""

    @property
    def digest(self) -> str:
        """Identifies the whole content."""
        return digest(f"{self.arrays_digest} {self.skeleton}".encode())


class _Encoded(NamedTuple):
    """Arrays that nobody can write to, and the object that they have become."""

    groups: Mapping[str, ArrayMap]
    reference: ObjectRef

    def holds(self, groups: Mapping[str, ArrayMap]) -> bool:
        """Whether these are the same arrays: not equal ones, but views on the same memory."""
        return _places(self.groups) == _places(groups)


def _places(groups: Mapping[str, ArrayMap]) -> list[tuple[str, str, object, str]]:
    """Where arrays lie. As long as one of them is referred to, no other can lie there."""
    return [
        (group, name, array.__array_interface__, array.dtype.str)
        for group, arrays in groups.items()
        for name, array in arrays.items()
    ]


class WeightStore:
    """Uploads and reads weights of one run."""

    def __init__(self, objects: ObjectStore, run: str) -> None:
        self._objects = objects
        self._run = run
        self._uploaded: set[str] = set()
        self._last: _Encoded | None = None

    def save(self, arrays: ArrayMap) -> str:
        """Upload a model where devices fetch it; returns the digest that names it."""
        return self._put_arrays({MODEL: arrays}).digest

    def load(self, name: str) -> ArrayMap:
        """The model that :meth:`save` named. Raises ObjectMissing when it is gone, or another is in
        its place: proxies write below the same prefix.
        """
        blob = self._objects.get(arrays_key(self._run, name))
        if digest(blob) != name:
            raise ObjectMissing(f"{arrays_key(self._run, name)} is not what its name says")
        records = decode_records(blob)
        return next(iter(records.arrays.values()))

    def adopt(self, name: str, run: str) -> None:
        """Copy another run's weights into this run; weights that have expired are skipped."""
        with contextlib.suppress(ObjectMissing):
            self._put(self._objects.get(arrays_key(run, name)))

    def take_over(self, names: Iterable[str]) -> None:
        """Answer for weights that an earlier server of the run has uploaded."""
        self._uploaded.update(filter(None, names))

    def keep_only(self, names: Container[str]) -> None:
        """Delete what this store has uploaded or taken over, apart from these digests."""
        for name in [name for name in self._uploaded if name not in names]:
            self._objects.discard(arrays_key(self._run, name))
            self._uploaded.discard(name)

    def upload(self, content: Records) -> PhaseContent:
        """Upload a message's arrays and encode what remains of it."""
        skeleton = encode_skeleton(
            Records(metrics=content.metrics, configs=content.configs, order=content.order)
        )
        if not content.arrays:
            return PhaseContent(None, None, skeleton)
        reference = self._put_arrays(content.arrays)
        # With several array records there is no one layout to hold updates against.
        single = len(content.arrays) == 1
        specs = array_specs(next(iter(content.arrays.values()))) if single else None
        return PhaseContent(reference, specs, skeleton)

    def _put_arrays(self, groups: Mapping[str, ArrayMap]) -> ObjectRef:
        """Encode and upload arrays, unless they are those that were encoded last.

        A round evaluates what its training gave, records it, and the next round begins with it.
        """
        if self._last is not None and self._last.holds(groups):
            return self._last.reference
        self._last = None  # its arrays are a model's memory
        blob = encode_records(Records(arrays=dict(groups)))
        reference = ObjectRef(self._put(blob), len(blob))
        release(array for group in groups.values() for array in group.values())
        if all(not array.flags.writeable for group in groups.values() for array in group.values()):
            self._last = _Encoded(groups, reference)
        return reference

    def _put(self, blob: bytes) -> str:
        name = digest(blob)
        # Evaluation sends what training's aggregation gave, and the next round trains from it.
        if name not in self._uploaded:
            self._objects.put(arrays_key(self._run, name), blob)
            self._uploaded.add(name)
        return name
