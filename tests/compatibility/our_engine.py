"""Runs an app here: the product's server, grid, cohorts and agents, over ports in memory.

The agents live on one event loop in a thread of their own. They call the app in that thread, where
a device has a process: Flower's task identity is therefore kept by thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from fakes.keys import COMMANDS, trust
from fakes.objects import FileObjects, MemoryObjects
from fakes.run_store import MemoryRunStore
from fakes.run_table import MemoryRunTable
from fakes.transport import MemoryTransport
from flwr.supercore.task_identity import TaskIdentity

from compatibility.outcome import Outcome
from edge.agent.agent import Agent
from edge.config import DeviceConfig
from edge.protocol.messages import Envelope
from edge.protocol.names import topic
from edge.protocol.records import decode_records
from edge.training.app_bundle import FlowerApp, unpack
from edge.training.worker import ClientRunner, WorkerJob, WorkerResult
from fl_runtime.cohort.runner import CohortRunner
from fl_runtime.run.cohorts import Cohort, form_cohorts
from fl_runtime.run.keys import app_key, champion_key, cohorts_key, model_key, round_key, spec_key
from fl_runtime.run.ports import StoredReply
from fl_runtime.run.records import RoundRecord
from fl_runtime.run.spec import RunSpec
from fl_runtime.run.state import RunState
from fl_runtime.server.server import Server, ServerResources
from pipelines.run.option_table import RunOptions
from pipelines.run.plan import ROUNDS_KEY, plan

FLEET, RUN = "f", "run-1"
DEVICES_PER_PROXY = 2
"""So that most apps have two cohorts."""


def cohorts_of(app: FlowerApp) -> list[Cohort]:
    """The cohorts of a fleet of as many devices as the app asks for."""
    return form_cohorts(FLEET, [f"d{index}" for index in range(app.devices)], DEVICES_PER_PROXY)


class _ThreadIdentity(type(TaskIdentity)):  # type: ignore[misc]
    """Flower's task identity, of which a device's thread has its own."""

    own = threading.local()

    def __getattribute__(cls, name: str) -> Any:
        own = type.__getattribute__(cls, "own").__dict__
        return own[name] if name in own else super().__getattribute__(name)

    def __setattr__(cls, name: str, value: Any) -> None:
        own = type.__getattribute__(cls, "own").__dict__
        if "device" in own and name.endswith("_id"):
            own[name] = value
        else:
            super().__setattr__(name, value)


class InProcessWorkers:
    """Workers that run the worker's own code in the agent's process."""

    def __init__(self) -> None:
        self._runner = ClientRunner()

    async def run(self, job: WorkerJob, seconds: float) -> WorkerResult:
        return self._runner.run(job)

    async def stop(self) -> None:
        return


class Wire:
    """Commands and Replies: between the server and the agents' transports."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._rows: dict[str, dict[str, StoredReply]] = {}
        self.transports: dict[str, WiredTransport] = {}

    def send(self, fleet: str, device: str, payload: bytes, seconds: float) -> None:
        deliver = self.transports[device].deliver
        self._loop.call_soon_threadsafe(deliver, topic(fleet, device, "command"), payload)

    def read(self, reply_key: str) -> list[StoredReply]:
        return list(self._rows.get(reply_key, {}).values())

    def store(self, device: str, payload: bytes) -> None:
        """Do what the IoT rule does with a reply."""
        envelope = msgspec.json.decode(payload, type=Envelope)
        row = StoredReply(FLEET, device, envelope.body)
        self._rows.setdefault(envelope.key, {})[device] = row


class WiredTransport(MemoryTransport):
    """A device's connection."""

    def __init__(self, wire: Wire, device: str) -> None:
        super().__init__()
        self._wire = wire
        self._device = device
        wire.transports[device] = self

    async def publish(self, topic: str, payload: bytes) -> None:
        if topic.endswith("/reply"):
            self._wire.store(self._device, payload)


class DeviceObjects(FileObjects):
    """A device's transfers, to and from the server's object store."""

    def __init__(self, folder: Path, store: MemoryObjects) -> None:
        super().__init__(folder)
        self.data = self.uploads = store.data


class OurEngine:
    """The world around one run."""

    def __init__(self, app: FlowerApp, folder: Path) -> None:
        self.app = app
        self.cohorts = cohorts_of(app)
        self.objects = MemoryObjects()
        self.runs = MemoryRunTable()
        self.store = MemoryRunStore()
        self._folder = folder

    def run(self, **options: Any) -> Outcome:
        """Run the app with these options of ``mledgeops run``."""
        self._start(RunOptions(**options))
        resources = ServerResources(
            objects=self.objects,
            runs=self.runs,
            host=self,  # type: ignore[arg-type]  # in the place of a CohortHost
            store=self.store,
            signer=COMMANDS.sign,
            eligible=lambda spec: {member.device for member in self._members()},
            uri=lambda key: f"s3://bucket/{key}",
        )
        work = self._folder / "work"
        work.mkdir()
        with contextlib.chdir(work):
            Server(RUN, resources, threading.Event()).serve()
        return self._outcome()

    @contextlib.contextmanager
    def serve(self, spec: RunSpec, cohorts: Sequence[Cohort], epoch: int) -> Iterator[CohortRunner]:
        """The run's backend; the fleet is up for as long as it is needed."""
        loop = asyncio.new_event_loop()
        wire, ready, ended = Wire(loop), threading.Event(), asyncio.Event()

        async def fleet() -> None:
            _ThreadIdentity.own.device = True
            agents = [self._agent(wire, index) for index in range(self.app.devices)]
            tasks = [asyncio.ensure_future(agent.run()) for agent in agents]
            while not all(transport.topics for transport in wire.transports.values()):
                await asyncio.sleep(0)
            ready.set()
            await ended.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        thread = threading.Thread(target=loop.run_until_complete, args=(fleet(),))
        with _identities_by_thread():
            thread.start()
            try:
                assert ready.wait(60), "the agents did not connect"
                yield CohortRunner(wire, wire, self.objects, clock=time.monotonic, sleep=_briefly)
            finally:
                loop.call_soon_threadsafe(ended.set)
                thread.join()
                loop.close()

    def _start(self, options: RunOptions) -> None:
        wanted = plan(self.app, options)
        rounds = {ROUNDS_KEY: wanted.rounds} if ROUNDS_KEY in self.app.config else {}
        spec = RunSpec(
            run=RUN,
            fleet=FLEET,
            app=self.app.digest(),
            app_name=self.app.name,
            num_rounds=wanted.rounds,
            min_devices=1,
            phase_seconds=120.0,
            strategy=options.strategy,
            strategy_params=options.strategy_params(),
            run_config={**options.run_config(), **rounds},
            devices_per_proxy=DEVICES_PER_PROXY,
        )
        self.objects.put(spec_key(RUN), msgspec.json.encode(spec))
        self.objects.put(cohorts_key(RUN), msgspec.json.encode(self.cohorts))
        self.objects.put(app_key(spec.app), self.app.bundle())
        self.objects.put(champion_key(RUN), b"null")
        self.runs.create(RunState(run=RUN, state="Starting"))

    def _agent(self, wire: Wire, index: int) -> Agent:
        home = self._folder / f"d{index}"
        config = DeviceConfig(
            fleet=FLEET,
            device=f"d{index}",
            home=str(home),
            node_config={"partition-id": index, "num-partitions": self.app.devices},
        )
        config.cache_dir.mkdir(parents=True)
        trust(config.trust_file, commands=COMMANDS)
        digest = self.app.digest()
        unpack(self.app.bundle(), config.apps_dir / digest, digest)
        transport = WiredTransport(wire, config.device)
        objects = DeviceObjects(config.cache_dir, self.objects)
        return Agent(config, transport, objects, InProcessWorkers())

    def _members(self) -> list[Any]:
        return [member for cohort in self.cohorts for member in cohort.members]

    def _outcome(self) -> Outcome:
        data = self.objects.data
        rounds, number = {}, 1
        while (key := round_key(RUN, number)) in data:
            rounds[number] = msgspec.json.decode(data[key], type=RoundRecord)
            number += 1
        model = data.get(model_key(RUN, "model.safetensors"))
        return Outcome(
            model=weights(model) if model else {},
            train={number: record.train for number, record in rounds.items()},
            evaluate={number: record.evaluate for number, record in rounds.items()},
            server={number: record.server for number, record in rounds.items()},
            tables=self.store.tables,
            files={name.rpartition("/")[2]: body for name, body in self.store.artifacts.items()},
        )


def weights(blob: bytes) -> dict[str, np.ndarray]:
    """The arrays of a model's file."""
    return next(iter(decode_records(blob).arrays.values()))


def _briefly(seconds: float) -> None:
    """Devices in this process answer at once: polling for them need not be slow."""
    time.sleep(min(seconds, 0.005))


@contextlib.contextmanager
def _identities_by_thread() -> Iterator[None]:
    original = type(TaskIdentity)
    TaskIdentity.__class__ = _ThreadIdentity
    try:
        yield
    finally:
        TaskIdentity.__class__ = original
