"""Runs an app as Flower does: its own ``Strategy.start`` or loop, over a grid in this process.

Messages go through Flower's serialization, so that it refuses here what it refuses elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import random
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common import parameters_to_ndarrays
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.server.server import Server
from flwr.server.workflow import DefaultWorkflow
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Result, Strategy
from flwr.supercore.object_ref import validate
from flwr.supercore.run import Run

from compatibility.outcome import Metrics, Outcome
from edge.training.app_bundle import FlowerApp
from edge.training.app_modules import app_on_path, forget_modules, load_component
from edge.training.flower_compat import set_identity
from fl_runtime.run.cohorts import Member
from fl_runtime.server.conclusion import tables_of

SERVER_NODE_ID = 1
RUN_ID = 12345


class InProcessGrid(Grid):
    """Nodes that are called one after the other, each with a context of its own."""

    def __init__(self, nodes: Sequence[Member], client: ClientApp, config: dict[str, Any]) -> None:
        self._client = client
        self._run = Run.create_empty(RUN_ID)
        self._replies: dict[str, Message] = {}
        self.sent: ArrayRecord | None = None
        """The last arrays that were sent for training or evaluation."""
        self._contexts = {
            node.node_id: Context(
                run_id=RUN_ID,
                node_id=node.node_id,
                node_config={"partition-id": index, "num-partitions": len(nodes)},
                state=RecordDict(),
                run_config=dict(config),
            )
            # Partitions go by the devices' names, whatever cohorts make of their order.
            for index, node in enumerate(sorted(nodes, key=lambda node: node.device))
        }
        self._order = [node.node_id for node in nodes]

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._order)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return [self._ask(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        wanted = [name for name in message_ids if name in self._replies]
        return [self._replies.pop(name) for name in wanted]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        replies = self.pull_messages(list(self.push_messages(messages)))
        return sorted(replies, key=lambda reply: reply.metadata.src_node_id)

    def _ask(self, message: Message) -> str:
        name = message.metadata.__dict__["_message_id"] = uuid.uuid4().hex
        self.sent = last_sent(message, self.sent)
        asked = message_from_proto(message_to_proto(message))
        reply = self._answer(asked)
        set_identity(RUN_ID, SERVER_NODE_ID)
        self._replies[name] = message_from_proto(message_to_proto(reply))
        return name

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        if node not in self._contexts:
            error = Error(ErrorCode.NODE_UNAVAILABLE, "Destination node is unavailable.")
            return Message(error, reply_to=message)
        set_identity(RUN_ID, node)
        try:
            return self._client(message, self._contexts[node])
        except Exception as error:
            failed = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, repr(error))
            return Message(failed, reply_to=message)


class Watch:
    """Sees the results that Flower's loops return to the app, or only log."""

    def __init__(self) -> None:
        self.outcome = Outcome()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            self._wrap(patch, Strategy, "start", lambda strategy, result: self._result(result))
            self._wrap(
                patch,
                Server,
                "fit",
                lambda server, made: self._legacy(
                    made[0], parameters_to_ndarrays(server.parameters)
                ),
            )
            self._wrap(patch, DefaultWorkflow, "__call__", None)
            yield

    def _wrap(
        self,
        patch: pytest.MonkeyPatch,
        kind: type[Any],
        name: str,
        see: Callable[[Any, Any], None] | None,
    ) -> None:
        original = getattr(kind, name)

        def watched(this: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(this, *args, **kwargs)
            if see is not None:
                see(this, result)
            else:  # a workflow leaves its results in its LegacyContext
                context = args[1]
                arrays = next(iter(context.state.array_records.values()))
                self._legacy(context.history, [array.numpy() for array in arrays.values()])
            return result

        patch.setattr(kind, name, watched)

    def _result(self, result: Result) -> None:
        found = self.outcome
        if result.arrays:
            found.model = {name: array.numpy() for name, array in result.arrays.items()}
        found.train = _plain(result.train_metrics_clientapp)
        found.evaluate = _plain(result.evaluate_metrics_clientapp)
        found.server = _plain(result.evaluate_metrics_serverapp)

    def _legacy(self, history: Any, arrays: Sequence[np.ndarray]) -> None:
        found = self.outcome
        found.model = {str(index): array for index, array in enumerate(arrays)}
        found.train = _by_round(history.metrics_distributed_fit)
        found.evaluate = _by_round(history.metrics_distributed, history.losses_distributed)
        found.server = _by_round(history.metrics_centralized, history.losses_centralized)


def run(app: FlowerApp, nodes: Sequence[Member], folder: Path) -> Outcome:
    """Run an app to its end; ``folder`` is its working directory."""
    for reference in (app.server_app, app.client_app):
        valid, reason = validate(reference, project_dir=app.folder)
        assert valid, f"`flwr run` would refuse the app: {reason}"
    forget_modules(app.folder, app.client_app)
    with app_on_path(app.folder), contextlib.chdir(folder):
        server: ServerApp = load_component(app.folder, app.server_app, ServerApp)
        client: ClientApp = load_component(app.folder, app.client_app, ClientApp)
        grid, watch = InProcessGrid(nodes, client, app.config), Watch()
        context = Context(RUN_ID, SERVER_NODE_ID, {}, RecordDict(), dict(app.config))
        random.seed(0)
        set_identity(RUN_ID, SERVER_NODE_ID)
        with watch.watching():
            server(grid, context)
        outcome = watch.outcome
        if not outcome.model:
            left = next(iter(context.state.array_records.values()), grid.sent)
            outcome.model = {name: array.numpy() for name, array in (left or {}).items()}
        outcome.tables = tables_of(context.state)
        outcome.files = files_in(folder)
    return outcome


def last_sent(message: Message, before: ArrayRecord | None) -> ArrayRecord | None:
    """The arrays that were sent last for training or evaluation."""
    if message.metadata.message_type.split(".")[0] not in ("train", "evaluate"):
        return before
    return next(iter(message.content.array_records.values()), before)


def files_in(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by their paths."""
    return {
        os.fspath(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def _plain(history: dict[int, Any]) -> Metrics:
    return {number: dict(metrics) for number, metrics in history.items()}


def _by_round(metrics: dict[str, Any], losses: Sequence[tuple[int, float]] = ()) -> Metrics:
    found: Metrics = {number: {"loss": loss} for number, loss in losses}
    for name, values in metrics.items():
        for number, value in values:
            found.setdefault(number, {})[name] = value
    return found
