"""A survival curve (Kaplan-Meier) over all clients, by a strategy that overrides ``start``."""

import json
from collections.abc import Iterable
from logging import INFO
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Result, Strategy
from flwr.supercore import log

from .task import partition_of, rng, wait_for_nodes

server = ServerApp()
client = ClientApp()


class Fitter(Strategy):
    """Asks every client once for its event times."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        content = RecordDict({"config": config})
        return [Message(content, node, "train") for node in grid.get_node_ids()]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        contents = [reply.content["events"] for reply in replies if reply.has_content()]
        times = np.concatenate([content["times"].numpy() for content in contents])
        events = np.concatenate([content["events"].numpy() for content in contents])
        at = np.unique(times[events == 1])
        dead = np.array([np.sum((times == time) & (events == 1)) for time in at])
        risk = np.array([np.sum(times >= time) for time in at])
        curve = np.cumprod(1 - dead / risk)
        return ArrayRecord({"time": Array(at), "survival": Array(curve)}), None

    def configure_evaluate(self, *_: object) -> Iterable[Message]:
        return []

    def aggregate_evaluate(self, *_: object) -> None:
        return None

    def summary(self) -> None:
        log(INFO, "Kaplan-Meier")

    def start(self, grid: Grid) -> Result:  # type: ignore[override]
        messages = self.configure_train(1, ArrayRecord(), ConfigRecord({"unit": "month"}), grid)
        arrays, _ = self.aggregate_train(1, grid.send_and_receive(messages, timeout=60))
        return Result(arrays=arrays)


@server.main()
def main(grid: Grid, context: Context) -> None:
    wait_for_nodes(grid, context)
    arrays = Fitter().start(grid=grid).arrays
    curve = {name: array.numpy().round(9).tolist() for name, array in arrays.items()}
    context.state["curve"] = ConfigRecord(curve)
    Path("curve.json").write_text(json.dumps(curve))


@client.train()
def train(message: Message, context: Context) -> Message:
    random = rng(11, partition_of(context))
    times = random.integers(1, 30, 40)
    events = (random.random(40) < 0.7).astype(np.int64)
    record = ArrayRecord({"times": Array(times), "events": Array(events)})
    return Message(RecordDict({"events": record}), reply_to=message)
