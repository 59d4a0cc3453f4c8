"""FedPer and FedBN: a client's own layer stays in ``context.state``; it replies with the others."""

from collections.abc import Iterable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .task import data, initial, loss, partition_of, round_of, to_numpy, to_record, trained

server = ServerApp()
client = ClientApp()


class SharedLayers(FedAvg):
    """Averages what the clients send, and keeps the rest of the model as it was."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.whole = arrays
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        arrays, metrics = super().aggregate_train(server_round, replies)
        return ArrayRecord({**self.whole, **(arrays or {})}), metrics


@server.main()
def main(grid: Grid, context: Context) -> None:
    weights = to_record({**to_numpy(initial()), "scale": np.ones(2, np.float32)})
    SharedLayers().start(
        grid=grid, initial_arrays=weights, num_rounds=context.run_config["num-server-rounds"]
    )


def _own(context: Context) -> dict[str, np.ndarray]:
    kept = context.state.array_records.get("own", ArrayRecord())
    return to_numpy(kept)


@client.train()
def train(message: Message, context: Context) -> Message:
    partition = partition_of(context)
    weights = {**to_numpy(message.content["arrays"]), **_own(context)}
    weights = trained(weights, partition, round_of(message))
    context.state["own"] = ArrayRecord({"b": Array(weights["b"])})
    order = context.run_config["order"].split(",")
    shared = {name: {**weights, "scale": np.full(2, partition, np.float32)}[name] for name in order}
    metrics = {"num-examples": len(data(partition)[0]), "train-loss": loss(weights, partition)}
    content = RecordDict({"arrays": to_record(shared), "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)


@client.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    partition = partition_of(context)
    weights = {**to_numpy(message.content["arrays"]), **_own(context)}
    metrics = {"num-examples": len(data(partition)[0]), "loss": loss(weights, partition)}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)
