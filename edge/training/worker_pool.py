"""Workers for many agents in one process: a bounded number, each forked when it is needed.

Where forking is safe, a worker serves one device only, and is replaced by a new fork when another
device needs its place. Where it is not, workers are started one by one and serve device after
device, as in Flower's simulation; a device's state follows it by its file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.frames import FramedProcess
from edge.logs import event
from edge.memory import usable_memory
from edge.protocol.names import is_digest
from edge.training.forked_worker import ForkingUnsafe, WorkerTemplate
from edge.training.imports import foreign_imports
from edge.training.worker import WorkerJob, WorkerResult
from edge.training.worker_process import AnyWorker, Workers, late, run_job

logger = logging.getLogger(__name__)

WORKERS = 64
"""Workers of one process at most. A job that waits for one uses up its seconds."""
ROOMY = 4096
"""MiB of usable memory below which half of the workers have to do: an app may hold its data."""
_TEMPLATES = 4
"""Templates kept: one for each set of imports, as long as few apps are in use."""

_Env = tuple[tuple[str, str], ...]
_Key = tuple[tuple[str, ...], _Env]


@dataclass(eq=False)
class Slot:
    """A live worker, and whom it serves."""

    process: AnyWorker
    owner: object
    template: WorkerTemplate | None
    env: _Env
    busy: bool = True
    used: float = 0.0
    """When its last job ended, by the monotonic clock."""


class _Templates:
    """One template for each set of imports and environment.

    Args:
        used: The templates that live workers were forked from.

    """

    def __init__(self, used: Callable[[], set[WorkerTemplate | None]]) -> None:
        self._used = used
        self._templates: dict[_Key, asyncio.Task[WorkerTemplate | None]] = {}
        self._imports: dict[tuple[str, str], tuple[str, ...]] = {}

    async def of(self, env: _Env, job: WorkerJob) -> WorkerTemplate | None:
        """Return the template with what an app imports; None where forking is not safe."""
        key = (self._imports_of(job), env)
        task = self._templates.get(key)
        if task is None or (task.done() and (known := task.result()) and not known.is_alive):
            task = self._templates[key] = asyncio.create_task(_start_template(key[0], dict(env)))
            await self._forget()
        return await asyncio.shield(task)

    def _imports_of(self, job: WorkerJob) -> tuple[str, ...]:
        # Each device has an app in a folder of its own, which is named by the app's digest.
        name = Path(job.app).name
        key = (name if is_digest(name) else job.app, job.client_app)
        if key not in self._imports:
            self._imports[key] = tuple(foreign_imports(Path(job.app), job.client_app))
        return self._imports[key]

    async def _forget(self) -> None:
        """End the oldest templates that nobody uses, beyond those that are kept."""
        used = self._used()
        for key, task in list(self._templates.items())[:-_TEMPLATES]:
            if task.done() and (template := task.result()) not in used:
                del self._templates[key]
                if template is not None:
                    await template.stop()

    async def stop(self) -> None:
        """End all templates."""
        for task in self._templates.values():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                if (template := await task) is not None:
                    await template.stop()
        self._templates.clear()


class WorkerPool:
    """Hands out workers.

    Args:
        limit: Workers at most.
        memory: MiB that more of them could use; 0: not known.

    """

    def __init__(self, limit: int = WORKERS, memory: Callable[[], int] = usable_memory) -> None:
        self._limit = limit
        self._memory = memory
        self._slots: list[Slot] = []
        self._starting = 0
        self._changed = asyncio.Condition()
        self._templates = _Templates(lambda: {slot.template for slot in self._slots})

    def for_device(self, env: Mapping[str, str]) -> Workers:
        """Return the workers of one device. ``env`` is added to their environment."""
        # A thread for each core in each of many workers is too much, and would forbid forking.
        return _DeviceWorkers(self, tuple(sorted({"OMP_NUM_THREADS": "1", **env}.items())))

    async def take(self, owner: object, env: _Env, job: WorkerJob) -> Slot:
        """Return a worker for one job, to be given back; waits for a place if need be."""
        template = await self._templates.of(env, job)
        async with self._changed:
            while (slot := self._idle(owner, env, template)) is None and self._is_full():
                await self._wait()
            if slot is not None and self._serves(slot, owner, env, template):
                slot.owner = owner
                return slot
            self._starting += 1
        try:
            if slot is not None:  # another device's: it makes room
                await self._drop(slot)
            made = await _start_worker(template, env, owner)
        except BaseException:  # its place is another's
            self._starting -= 1
            await self._tell()
            raise
        self._starting -= 1
        self._slots.append(made)
        return made

    async def give_back(self, slot: Slot, *, alive: bool) -> None:
        """Take a worker back after its job; one that is not alive is forgotten."""
        if not alive:
            await self._drop(slot)
        slot.busy, slot.used = False, time.monotonic()
        await self._tell()

    async def release(self, owner: object) -> None:
        """End the workers of a device that is gone."""
        for slot in [slot for slot in self._slots if slot.owner is owner and not slot.busy]:
            await self._drop(slot)
            await self._tell()

    async def stop(self) -> None:
        """End all workers and templates."""
        for slot in list(self._slots):
            await self._drop(slot)
        await self._templates.stop()

    async def _wait(self) -> None:
        try:
            await self._changed.wait()
        except asyncio.CancelledError:  # this one may have been told, and another has to be
            self._changed.notify()
            raise

    async def _tell(self) -> None:
        """One place is free: of 1,000 devices that wait, all would look for it."""
        async with self._changed:
            self._changed.notify()

    def _is_full(self) -> bool:
        count = len(self._slots) + self._starting
        if count < self._limit // 2:
            return False
        return count >= self._limit or 0 < self._memory() < ROOMY

    def _idle(self, owner: object, env: _Env, template: WorkerTemplate | None) -> Slot | None:
        """Return an idle worker, marked as busy: the device's own, or one that is to make room."""
        idle = sorted((s for s in self._slots if not s.busy), key=lambda slot: slot.used)
        fitting = [s for s in idle if self._serves(s, owner, env, template)]
        own = [s for s in fitting if s.owner is owner]
        found = own or ((fitting or idle) if self._is_full() else [])
        if not found:
            return None
        found[0].busy = True
        return found[0]

    @staticmethod
    def _serves(slot: Slot, owner: object, env: _Env, template: WorkerTemplate | None) -> bool:
        """Whether a worker may run a device's job: its own fork, or any that was not forked."""
        return (slot.template, slot.env) == (template, env) and (
            slot.owner is owner or template is None
        )

    async def _drop(self, slot: Slot) -> None:
        if slot in self._slots:
            self._slots.remove(slot)
        await slot.process.stop()


class _DeviceWorkers:
    """:class:`Workers` of one device, out of a pool."""

    def __init__(self, pool: WorkerPool, env: _Env) -> None:
        self._pool = pool
        self._env = env

    async def run(self, job: WorkerJob, seconds: float) -> WorkerResult:
        """Run one job; the wait for a worker counts."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                slot = await self._pool.take(self, self._env, job)
        except TimeoutError:
            return late(seconds)
        alive = False
        try:
            left = seconds - (time.monotonic() - began)
            result, alive = await run_job(slot.process, job, left)
            return result
        finally:
            await self._pool.give_back(slot, alive=alive)

    async def stop(self) -> None:
        """Give the device's worker back."""
        await self._pool.release(self)


async def _start_worker(template: WorkerTemplate | None, env: _Env, owner: object) -> Slot:
    if template is not None:
        with contextlib.suppress(ForkingUnsafe):  # the template has just died
            return Slot(await template.fork(), owner, template, env)
    return Slot(FramedProcess(("edge.training.worker",), dict(env)), owner, None, env)


async def _start_template(modules: tuple[str, ...], env: dict[str, str]) -> WorkerTemplate | None:
    template = WorkerTemplate(modules, env)
    try:
        await template.start()
    except ForkingUnsafe as error:
        event(logger, "workers-not-forked", logging.INFO, reason=str(error))
        return None
    return template
