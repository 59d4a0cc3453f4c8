"""A phase with large updates in a folder: what the measures of aggregation work on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from edge.protocol.messages import ObjectRef, Reply
from edge.protocol.records import ArrayMap, Records, ValueMap, write_records
from edge.typed import from_json
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import arrays_key, phase_id, update_key
from fl_runtime.run.messages import EXAMPLES, ArraySpec, OrderKey, PhaseRequest, Target
from fl_runtime.run.ports import StoredReply

RUN = "bench"
PHASE = phase_id(1, "train", 1, "0" * 64)
LAYERS = 8
"""Arrays of the model, of about one size."""
DISTINCT = 10
"""Updates that are made; more devices send the same ones again."""
_PART = 2**20


class FolderObjects:
    """An object store in a folder. A download costs a copy, as one from S3 costs a read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, key: str) -> Path:
        """Where an object lies. All copies of an update are one file."""
        return self._folder / key.replace("/", "_")

    def get(self, key: str, limit: int | None = None) -> bytes:  # the port's
        """See the port."""
        try:
            return self.path(key).read_bytes()
        except FileNotFoundError as error:
            raise ObjectMissing(key) from error

    def download(self, key: str, file: BinaryIO, limit: int) -> str:  # the port's
        """See the port."""
        found = hashlib.sha256()
        with self.path(key).open("rb", buffering=0) as source:
            while part := source.read(_PART):
                found.update(part)
                file.write(part)
        return found.hexdigest()

    def put(self, key: str, data: bytes) -> None:
        """See the port."""
        self.path(key).write_bytes(data)

    def discard(self, key: str) -> None:
        """See the port."""
        self.path(key).unlink(missing_ok=True)

    def url_to_get(self, key: str, seconds: float) -> str:  # the port's
        """See the port."""
        return key

    def url_to_put(self, key: str, seconds: float, limit: int) -> str:  # the port's
        """See the port."""
        return key


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What :func:`make` has written."""

    size: int
    """Parameters of the model."""
    model: ObjectRef
    updates: list[ObjectRef]


@dataclass(frozen=True)
class Answers:
    """Devices that have all answered before they are asked."""

    replies: list[StoredReply]

    def send(self, fleet: str, device: str, payload: bytes, seconds: float) -> None:
        """See the port Commands."""

    def read(self, reply_key: str) -> list[StoredReply]:  # the port's
        """See the port Replies."""
        return self.replies


def model(size: int, seed: int) -> ArrayMap:
    """Arrays of float32 with ``size`` random parameters together."""
    generator = np.random.default_rng(seed)
    sizes = [len(part) for part in np.array_split(np.empty(size, np.int8), LAYERS)]
    return {
        f"layer{at}": generator.standard_normal(count, dtype=np.float32)
        for at, count in enumerate(sizes)
    }


def make(folder: Path, size: int) -> Stored:
    """Write a model and its updates."""
    objects = FolderObjects(folder)

    def write(name: str, records: Records) -> ObjectRef:
        with objects.path(name).open("wb") as file:
            return ObjectRef(*write_records(records, file))

    base = write("model", Records(arrays={"arrays": model(size, DISTINCT)}))
    objects.path("model").rename(objects.path(arrays_key(RUN, base.digest)))
    updates = []
    for seed in range(DISTINCT):
        metrics: dict[str, ValueMap] = {"metrics": {EXAMPLES: 10 + seed, "loss": 0.5}}
        update = write(f"{seed}", Records(arrays={"arrays": model(size, seed)}, metrics=metrics))
        updates.append(update)
    stored = Stored(size=size, model=base, updates=updates)
    (folder / "stored.json").write_bytes(msgspec.json.encode(stored))
    return stored


def read(folder: Path) -> Stored:
    """What :func:`make` wrote into a folder."""
    return from_json((folder / "stored.json").read_bytes(), type=Stored)


def devices(folder: Path, count: int) -> Iterator[tuple[str, ObjectRef]]:
    """Names and updates of so many devices."""
    stored, objects = read(folder), FolderObjects(folder)
    for number in range(count):
        name = f"d{number:04d}"
        link = objects.path(update_key(RUN, PHASE, name))
        if not link.exists():
            link.hardlink_to(folder / f"{number % DISTINCT}")
        yield name, stored.updates[number % DISTINCT]


def request(
    folder: Path, count: int, *, judged: bool = True, cohort: str = "c0000"
) -> PhaseRequest:
    """A train phase of so many devices. ``judged``: earlier rounds say what to expect."""
    stored = read(folder)
    asked = list(devices(folder, count))
    return PhaseRequest(
        run=RUN,
        fleet="f",
        cohort=cohort,
        phase=PHASE,
        server_round=1,
        kind="train",
        app="0" * 64,
        targets=[Target(name, at, f"m-{name}") for at, (name, _) in enumerate(asked)],
        content='{"order":[],"arrays":{},"metrics":{},"configs":{}}',
        arrays=stored.model,
        seconds=600.0,
        flower_run_id=1,
        run_config="{}",
        key=OrderKey(bytes(32), b"{}", ""),
        fold=True,
        specs=[ArraySpec(n, a.dtype.str, a.shape) for n, a in model(stored.size, 0).items()],
        size_limit=2 * stored.model.size + 2**20,
        norm_limit=1e9 if judged else 0.0,
        norm_factor=0.0 if judged else 10.0,
        layout={EXAMPLES: -1, "loss": -1},
    )


def answers(folder: Path, asked: PhaseRequest) -> Answers:
    """The replies to a request."""
    replies = []
    for name, update in devices(folder, len(asked.targets)):
        reply = Reply(run=RUN, phase=PHASE, message_id=f"m-{name}", status="ok", update=update)
        replies.append(StoredReply("f", name, msgspec.json.encode(reply).decode()))
    return Answers(replies)
