"""Runs an app in Flower's simulation engine: a SuperLink in this process, and Ray's for the nodes.

Node ids are random there, and their order is not the partitions'. An app whose numbers depend on
that order (:attr:`App.ordered`) cannot be compared with it.
"""

from __future__ import annotations

import contextlib
import importlib
import random
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.supercore.telemetry import EventType
from flwr.superlink.grid.inmemory_grid import InMemoryGrid

from compatibility.flower_engine import SERVER_NODE_ID, Watch, files_in, last_sent
from compatibility.outcome import Outcome
from edge.training.app_bundle import FlowerApp
from edge.training.app_modules import app_on_path, forget_modules
from fl_runtime.server.conclusion import tables_of

# The package has a function of the module's name.
run_simulation = importlib.import_module("flwr.simulation.run_simulation")
REGISTER_SECONDS = 300.0
"""Ray takes more than a minute to start on a busy machine, and the nodes come after it."""


class SeenGrid(InMemoryGrid):
    """The engine's grid, which notes what is sent, and is used when all of its nodes are there.

    They register one after the other while the ServerApp runs already. A strategy that is content
    with two, as Flower's are by default, would sample of those.
    """

    sent: ClassVar[ArrayRecord | None] = None
    nodes: ClassVar[int] = 0

    def get_node_ids(self) -> Iterable[int]:
        end = time.monotonic() + REGISTER_SECONDS
        while len(found := list(super().get_node_ids())) < SeenGrid.nodes:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(found)} of {SeenGrid.nodes} nodes are there")
            time.sleep(0.01)
        return found

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        batch = list(messages)
        for message in batch:
            SeenGrid.sent = last_sent(message, SeenGrid.sent)
        return super().push_messages(batch)


def run(app: FlowerApp, folder: Path) -> Outcome:
    """Run an app to its end; ``folder`` is the ServerApp's working directory."""
    forget_modules(app.folder, app.client_app)
    watch = Watch()
    context = Context(0, SERVER_NODE_ID, {}, RecordDict(), dict(app.config))
    SeenGrid.sent, SeenGrid.nodes = None, app.devices
    with (
        app_on_path(app.folder),
        contextlib.chdir(folder),
        watch.watching(),
        _seeded(),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(run_simulation, "InMemoryGrid", SeenGrid)
        done = run_simulation._run_simulation(
            num_supernodes=app.devices,
            exit_event=EventType.PYTHON_API_RUN_SIMULATION_LEAVE,
            server_app_attr=app.server_app,
            client_app_attr=app.client_app,
            server_app_context=context,
            app_dir=str(app.folder),
            is_app=True,
            backend_config={"init_args": {"num_cpus": 2, "include_dashboard": False}},
        )
    outcome = watch.outcome
    if not outcome.model:
        left = next(iter(done.context.state.array_records.values()), SeenGrid.sent)
        outcome.model = {name: array.numpy() for name, array in (left or {}).items()}
    outcome.tables = tables_of(done.context.state)
    outcome.files = files_in(folder)
    return outcome


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)
