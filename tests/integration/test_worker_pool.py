"""A bounded pool: workers are forked or started, die alone, and keep devices apart."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from edge.protocol.records import Records, decode_skeleton, encode_skeleton
from edge.training import forked_worker
from edge.training.worker import WorkerJob, WorkerResult
from edge.training.worker_pool import WorkerPool
from edge.training.worker_template import is_fork_safe
from pipelines.cli.commands.measure import bench_workers

APP = """
import os, random, signal, sys, time
import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
calls = 0

@app.query()
def query(message, context):
    global calls
    calls += 1
    config = message.content["config"]
    if config["do"] == "die":
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if config["do"] == "hang":
        time.sleep(60)
    context.state["n"] = MetricRecord({"n": len(context.state) + calls})
    found = {"pid": os.getpid(), "parent": os.getppid(), "calls": calls,
             "drawn": [random.random(), float(np.random.rand())]}
    return Message(RecordDict({"r": ConfigRecord({**found, "seen": len(context.state)})}),
                   reply_to=message)
"""


def job(folder: Path, do: str, node: int) -> WorkerJob:
    return WorkerJob(
        app=str(folder),
        client_app="pooled:app",
        kind="query",
        message_id="m",
        flower_run_id=1,
        node_id=node,
        node_config={},
        run_config={},
        content=encode_skeleton(Records(configs={"config": {"do": do}})),
        arrays_path="",
        update_path=str(folder / f"update-{node}"),
        state_path=str(folder / "state" / f"{node}.state"),
    )


class Devices:
    """Three devices on one pool."""

    def __init__(self, folder: Path, pool: WorkerPool) -> None:
        self._folder = folder
        self.pool = pool
        self._workers = [pool.for_device({}) for _ in range(3)]

    async def ask(self, node: int, do: str = "answer", seconds: float = 30.0) -> WorkerResult:
        return await self._workers[node].run(job(self._folder, do, node), seconds)

    async def answer(self, node: int) -> dict:
        result = await self.ask(node)
        assert result.ok, result.reason
        return decode_skeleton(result.content).configs["r"]

    async def gone(self, node: int) -> None:
        await self._workers[node].stop()


def with_devices(folder: Path, test: Callable[[Devices], Awaitable[None]], limit: int = 2) -> None:
    (folder / "pooled.py").write_text(APP)

    async def main() -> None:
        pool = WorkerPool(limit)
        try:
            await test(Devices(folder, pool))
        finally:
            await pool.stop()

    asyncio.run(main())


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="workers are forked on Linux only")
def test_workers_are_forked_one_for_each_device_and_die_alone(tmp_path: Path) -> None:
    """One sequence, because a template takes a second to import Flower."""

    async def test(devices: Devices) -> None:
        a, b = await asyncio.gather(devices.answer(0), devices.answer(1))
        assert (a["pid"] != b["pid"], a["parent"] == b["parent"]) == (True, True)
        assert all(mine != theirs for mine, theirs in zip(a["drawn"], b["drawn"], strict=True))
        assert (await devices.answer(0))["calls"] == 2
        c = await devices.answer(2)
        assert (c["calls"], is_running(a["pid"]), is_running(b["pid"])) == (1, True, False), (
            "the pool is full: the worker that was idle longest makes room"
        )
        died = await devices.ask(2, "die")
        assert (died.code, "signal 9" in died.reason) == ("worker-died", True)
        assert died.reason.endswith("last words")
        hanging = asyncio.create_task(devices.ask(0, "hang", 0.6))
        another = asyncio.create_task(devices.ask(1, "hang", 0.6))
        await asyncio.sleep(0.2)
        waited = await devices.ask(2, seconds=0.1)
        assert {waited.code, (await hanging).code, (await another).code} == {"deadline"}
        assert not is_running(a["pid"])
        again = await devices.answer(1)
        assert (again["calls"], again["seen"]) == (1, 1), "a new worker, and the old state"
        await devices.gone(1)
        assert not is_running(again["pid"])
        os.kill(again["parent"], signal.SIGKILL)
        anew = await devices.answer(0)
        assert anew["parent"] != again["parent"]
        await devices.pool.stop()
        assert not is_running(anew["pid"])

    with_devices(tmp_path, test)


def test_where_forking_is_not_safe_devices_share_workers_and_keep_their_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forked_worker.sys, "platform", "other")

    async def test(devices: Devices) -> None:
        answers = [await devices.answer(node) for node in (0, 1, 0)]
        assert len({answer["pid"] for answer in answers}) == 1
        assert [answer["calls"] for answer in answers] == [1, 2, 3]
        assert [answer["seen"] for answer in answers] == [1, 1, 1]

    with_devices(tmp_path, test, limit=1)


@pytest.mark.parametrize(("memory", "workers"), [(1000, 1), (0, 3)])
def test_half_of_the_workers_have_to_do_where_memory_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int, workers: int
) -> None:
    """All that wait get their turn, also after one gave up waiting."""
    monkeypatch.setattr(forked_worker.sys, "platform", "other")

    async def test(devices: Devices) -> None:
        devices.pool._memory = lambda: memory
        busy = asyncio.create_task(devices.ask(0, "hang", 1.0))
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(devices.ask(1, seconds=0.1 * n)) for n in (1, 2)]
        answers = [devices.ask(node) for node in (1, 2, 1, 2)]
        assert {result.code for result in await asyncio.gather(*answers)} == {""}
        assert (await busy).code == "deadline"
        await asyncio.gather(*waiting)
        assert len(devices.pool._slots) <= workers

    with_devices(tmp_path, test, limit=3)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are listed on Linux only")
def test_a_process_with_another_thread_must_not_fork() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    assert not is_fork_safe()
    stop.set()
    thread.join()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="memory is read on Linux only")
def test_the_bench_measures_workers(tmp_path: Path) -> None:
    peak, seconds = asyncio.run(bench_workers._large_model(tmp_path, parameters=1000))
    assert (peak.value > 50, seconds.value > 0) == (True, True)
    _, own = asyncio.run(bench_workers._forks(2))
    assert 0 < own.value < peak.value
