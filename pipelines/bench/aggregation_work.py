"""One piece of work by itself in a process, with its time and its memory.

``python -m pipelines.bench.aggregation_work FOLDER WORK COUNT`` prints one JSON object. The folder
is one that :func:`pipelines.bench.updates.make` has filled.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, Krum, Strategy

from edge.protocol.records import decode_records
from edge.training.flower_compat import set_identity, to_recorddict
from fl_runtime.aggregation.mapped import fetch
from fl_runtime.cohort.rpc import frames
from fl_runtime.cohort.runner import PARALLEL, CohortRunner
from fl_runtime.run.cohorts import Member, form_cohorts
from fl_runtime.run.concurrency import THREADS
from fl_runtime.run.keys import arrays_key, update_key
from fl_runtime.run.messages import (
    EXAMPLES,
    PART_BYTES,
    DeviceResult,
    Folded,
    FoldedPart,
    PhaseDone,
    PhaseEvent,
    PhaseRequest,
)
from fl_runtime.run.records import RoundRecord
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.aggregation.block_strategies import aggregate_train
from fl_runtime.server.grid.flower_compat import make_reply, name_message, round_loop
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.grid.phases import PhaseExecutor
from fl_runtime.server.rounds.checkpoints import Checkpoint, CheckpointStore
from fl_runtime.server.rounds.round_loop import RoundLoop
from pipelines.bench.updates import PHASE, RUN, FolderObjects, answers, devices, read, request

Clocked = Callable[[], None]
"""Called when the work begins and when it ends; what lies before and after does not count."""
STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "median": FedMedian,
    "trimmed-mean": lambda: FedTrimmedAvg(beta=0.2),
    "krum": lambda: Krum(num_malicious_nodes=2),
}


class Done(msgspec.Struct, frozen=True):
    """What a piece of work took."""

    seconds: float
    cpu: float
    """Seconds of all cores: what other processes do meanwhile does not count."""
    peak: float
    """MiB of memory at most, those of the process and its libraries included."""
    more: float
    """MiB of memory at most beyond what the process had before."""


def hashing(folder: Path, count: int, mark: Clocked) -> None:
    """Download and hash, as a cohort does."""
    objects, given = FolderObjects(folder), list(devices(folder, count))

    def call(item: Any) -> str:
        name, update = item
        return fetch(objects, update_key(RUN, PHASE, name), update.size)[1]

    mark()
    for _ in THREADS.each(call, given, PARALLEL):
        pass
    mark()


def numpy_mean(folder: Path, count: int, mark: Clocked) -> None:
    """NumPy's running mean of arrays in memory: the floor."""
    stored = read(folder)
    blobs = [(folder / str(at)).read_bytes() for at in range(4)]
    flat = [
        np.frombuffer(blob, np.float32, stored.size, len(blob) - 4 * stored.size) for blob in blobs
    ]
    total, scaled = np.zeros(stored.size, np.float32), np.ones(stored.size, np.float32)
    mark()
    for number in range(count):
        np.multiply(flat[number % 4], 1 / count, out=scaled)
        np.add(total, scaled, out=total)
    mark()


def mean(folder: Path, count: int, mark: Clocked) -> None:
    """A cohort's part of a later round: download, hash, check, norm, sum, and the mean's file."""
    asked = request(folder, count)
    runner, read_all = _runner(folder, asked), _reader()
    mark()
    read_all(runner.run(asked))
    mark()


def first_mean(folder: Path, count: int, mark: Clocked) -> None:
    """The same in a first round, whose updates the server judges before they are added."""
    asked = request(folder, count, judged=False)
    runner, read_all = _runner(folder, asked), _reader()
    mark()
    results = read_all(runner.run(asked))
    read_all(runner.run(msgspec.structs.replace(asked, accepted=results)))
    mark()


def ours(folder: Path, count: int, mark: Clocked, name: str) -> None:
    """A robust strategy over mapped files."""
    objects, replies = FolderObjects(folder), []
    for at, (device, update) in enumerate(devices(folder, count)):
        blob, _ = fetch(objects, update_key(RUN, PHASE, device), update.size)
        replies.append(_reply(at, to_recorddict(decode_records(blob))))
    strategy = STRATEGIES[name]()
    mark()
    aggregate_train(strategy, 1, replies)
    mark()


def flowers(folder: Path, count: int, mark: Clocked, name: str) -> None:
    """The same by Flower's own code, which holds all updates."""
    replies = []
    for at, _ in enumerate(devices(folder, count)):
        records = decode_records((folder / str(at % 10)).read_bytes())
        arrays = {key: Array(np.array(value)) for key, value in records.arrays["arrays"].items()}
        content = RecordDict(
            {
                "arrays": ArrayRecord(arrays),
                "metrics": MetricRecord(dict(records.metrics["metrics"])),
            }
        )
        replies.append(_reply(at, content))
    strategy = STRATEGIES[name]()
    mark()
    strategy.aggregate_train(1, replies)
    mark()


def proxy(folder: Path, count: int, mark: Clocked) -> None:
    """A proxy with its clients and libraries, in a later round; what it sends goes nowhere."""
    import fl_runtime.proxy  # noqa: F401  # its libraries count
    from fl_runtime.run.aws import client

    os.environ.setdefault("AWS_DEFAULT_REGION", "eu-west-1")
    held = [client(name) for name in ("dynamodb", "iot-data", "s3", "secretsmanager")]
    mean(folder, count, mark)
    held.clear()


def server(folder: Path, count: int, mark: Clocked) -> None:
    """A server's two rounds with ``count`` cohorts behind proxies, and MLflow's library."""
    import mlflow  # noqa: F401  # its library counts

    stored, objects = read(folder), FolderObjects(Path(tempfile.mkdtemp()))
    names = [name for name, _ in devices(folder, count)]
    cohorts = form_cohorts("f", names, 1)
    spec = RunSpec(run=RUN, fleet="f", app="0" * 64, app_name="bench", num_rounds=2, min_devices=1)
    checkpoints = CheckpointStore(objects, RUN)

    def record(done: RoundRecord, checkpoint: Checkpoint | None) -> None:
        if checkpoint is not None:
            checkpoints.save(replace(checkpoint, record=b"{}", model=done.model))

    set_identity(1, 1)
    phases = PhaseExecutor(
        spec,
        cohorts,
        _Proxies(folder),
        objects,
        clock=time.monotonic,
        signer=lambda text: f"{len(text)}",
    )
    initial = decode_records(FolderObjects(folder).get(arrays_key(RUN, stored.model.digest)))
    arrays = ArrayRecord({k: Array(np.array(a)) for k, a in initial.arrays["arrays"].items()})
    del initial
    loop = RoundLoop(spec, record, lambda: False)
    least = min(2, len(names))
    strategy = FedAvg(min_train_nodes=least, min_evaluate_nodes=least, min_available_nodes=least)
    mark()
    with round_loop(IoTGrid, loop):
        strategy.start(grid=IoTGrid(phases), initial_arrays=arrays, num_rounds=2)
    mark()


class _Proxies:
    """Proxies that have folded already: their means come in parts, as over the wire."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, asked: PhaseRequest) -> Iterator[PhaseEvent]:
        """See CohortBackend."""
        metrics = {EXAMPLES: 10, "loss": 0.5}
        results = asked.accepted or [
            DeviceResult(
                device=target.device,
                node_id=target.node_id,
                message_id=target.message_id,
                status="ok",
                metrics=metrics,
                norm=1.0,
                examples=10.0,
            )
            for target in asked.targets
        ]
        yield from results
        if asked.kind == "train" and (asked.accepted or asked.layout is not None):
            names, offset = [result.device for result in results], 0
            with (self._folder / "0").open("rb") as file:  # any update is a mean
                while len(part := file.read(PART_BYTES)) == PART_BYTES:
                    yield FoldedPart(asked.phase, offset, part)
                    offset += len(part)
            yield Folded(asked.phase, part, len(names), names)
        yield PhaseDone(asked.phase)


def _runner(folder: Path, asked: PhaseRequest) -> CohortRunner:
    cloud = answers(folder, asked)
    return CohortRunner(cloud, cloud, FolderObjects(folder), clock=time.monotonic, sleep=time.sleep)


def _reader() -> Callable[[Iterator[PhaseEvent]], list[DeviceResult]]:
    """Reads events as a proxy does, which encodes each; returns the results."""

    def read_all(events: Iterator[PhaseEvent]) -> list[DeviceResult]:
        results = []
        for item in events:
            for _ in frames(item):
                pass
            if isinstance(item, DeviceResult):
                results.append(item)
        failed = [result.reason for result in results if result.status != "ok"]
        if failed:
            raise RuntimeError(f"{len(failed)} updates were refused: {failed[0]}")
        return results

    return read_all


def _reply(number: int, content: RecordDict) -> Message:
    asked = Message(RecordDict(), Member(f"d{number}", number + 10, {}).node_id, "train")
    name_message(asked, f"m{number}")
    return make_reply(asked, content)


WORKS: dict[str, Callable[..., None]] = {
    "hashing": hashing,
    "numpy-mean": numpy_mean,
    "mean": mean,
    "first-mean": first_mean,
    "proxy": proxy,
    "server": server,
}


def measured(folder: Path, work: str, count: int) -> Done:
    """Carry out a piece of work. A strategy's name goes behind ``ours:`` or ``flowers:``."""
    marks: list[tuple[float, float, float]] = []

    def mark() -> None:
        if not marks:
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        memory = _memory("VmHWM" if marks else "VmRSS")
        marks.append((time.perf_counter(), time.process_time(), memory))

    whose, _, name = work.partition(":")
    before = _memory("VmRSS")
    set_identity(1, 1)
    if name:
        {"ours": ours, "flowers": flowers}[whose](folder, count, mark, name)
    else:
        WORKS[work](folder, count, mark)
    (began, worked, start), (ended, done, peak) = marks
    # A strategy's updates are its own, whoever has read them before.
    return Done(ended - began, done - worked, peak, peak - (before if name else start))


def _memory(field: str) -> float:
    """MiB of this process, as Linux counts them."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    tempfile.tempdir = sys.argv[1]
    print(msgspec.json.encode(measured(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))).decode())  # noqa: T201
