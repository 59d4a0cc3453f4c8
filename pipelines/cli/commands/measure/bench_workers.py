"""Measures of the training processes: the memory of one with a large model, and of many at once."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from edge.protocol.records import Records, encode_skeleton, write_records
from edge.training.forked_worker import ForkedWorker, ForkingUnsafe, WorkerTemplate
from edge.training.worker import WorkerJob
from edge.training.worker_process import WorkerProcess
from pipelines.cli.commands.measure.measure import Measure
from pipelines.errors import UsageError

PARAMETERS = 11_700_000
"""A ResNet-18."""
FORKS = 40
JOBS = 3
MIB = 2**20
_APP = """
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    import torch

    state = message.content["arrays"].to_torch_state_dict()
    for tensor in state.values():
        tensor.add_(0.1)
    content = {"arrays": ArrayRecord(state), "metrics": MetricRecord({"num-examples": 1})}
    return Message(RecordDict(content), reply_to=message)
"""


def worker_measures(folder: Path) -> list[Measure]:
    """The peak of a worker that trains a large model with torch, and 40 forked workers."""
    return [*asyncio.run(_large_model(folder)), *asyncio.run(_forks(FORKS))]


async def _large_model(folder: Path, parameters: int = PARAMETERS) -> list[Measure]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "client.py").write_text(_APP)
    layers = {f"layer-{number}": np.ones(parameters // 10, np.float32) for number in range(10)}
    with (folder / "arrays").open("wb") as stream:
        write_records(Records(arrays={"arrays": layers}), stream)
    job = WorkerJob(
        app=str(folder),
        client_app="client:app",
        kind="train",
        message_id="bench",
        flower_run_id=1,
        node_id=1,
        node_config={},
        run_config={},
        content=encode_skeleton(Records(order=("arrays",))),
        arrays_path=str(folder / "arrays"),
        update_path=str(folder / "update"),
    )
    worker, seconds = WorkerProcess({"OMP_NUM_THREADS": "1"}), 0.0
    try:
        for _ in range(JOBS):
            began = time.monotonic()
            result = await worker.run(job, 300.0)
            seconds = time.monotonic() - began
            if not result.ok:
                raise UsageError(f"The app to measure failed: {result.reason}.")
        peak = max(_peak(child.pid) for child in psutil.Process().children())
    finally:
        await worker.stop()
    what = f"worker with torch, {parameters / 1e6:.1f}M"
    # Half of the 913 MiB that Flower's client took, without the 80 that an agent may take.
    return [
        Measure(name=f"{what}: peak memory", value=peak, unit="MiB", target=376.0),
        Measure(name=f"{what}: seconds of a job", value=seconds, unit="s"),
    ]


def _peak(pid: int) -> float:
    """Largest resident memory (MiB) that a process has had, as Linux knows it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


async def _forks(count: int) -> list[Measure]:
    """Time and memory of workers that are forked from one template, after its start."""
    if sys.platform != "linux":
        return []
    others = {child.pid for child in psutil.Process().children()}
    template = WorkerTemplate(["torch"], {"OMP_NUM_THREADS": "1"})
    workers: list[ForkedWorker] = []
    try:
        await template.start()
        began = time.monotonic()
        while len(workers) < count:
            workers.append(await template.fork())
        seconds = time.monotonic() - began
        # Whoever measures may have other children.
        (process,) = (c for c in psutil.Process().children() if c.pid not in others)
        own = sorted(child.memory_full_info().uss / MIB for child in process.children())
    except ForkingUnsafe:
        return []
    finally:
        for worker in workers:
            await worker.stop()
        await template.stop()
    return [
        Measure(name=f"{count} forked workers: seconds", value=seconds, unit="s"),
        Measure(name="forked worker: memory of its own", value=own[len(own) // 2], unit="MiB"),
    ]
