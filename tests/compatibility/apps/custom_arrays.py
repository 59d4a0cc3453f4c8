"""Arrays in a serialization of the app's own (``Array(stype=...)``), read by the app alone."""

from collections.abc import Iterable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .task import data, initial, loss, partition_of, round_of, to_numpy, to_record, trained

server = ServerApp()
client = ClientApp()
STYPE = "app.float16"


def packed(weights: dict[str, np.ndarray]) -> ArrayRecord:
    """Weights as half-precision bytes."""
    return ArrayRecord(
        {
            name: Array(
                dtype="float16",
                shape=tuple(array.shape),
                stype=STYPE,
                data=array.astype(np.float16).tobytes(),
            )
            for name, array in weights.items()
        }
    )


def unpacked(record: ArrayRecord) -> dict[str, np.ndarray]:
    """The inverse of :func:`packed`."""
    assert all(array.stype == STYPE for array in record.values())
    return {
        name: np.frombuffer(array.data, np.float16).reshape(array.shape).astype(np.float32)
        for name, array in record.items()
    }


class Packing(FedAvg):
    """Unpacks what clients send, and averages it."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        found = list(replies)
        for reply in found:
            reply.content["arrays"] = to_record(unpacked(reply.content["arrays"]))
        return super().aggregate_train(server_round, found)


@server.main()
def main(grid: Grid, context: Context) -> None:
    Packing().start(
        grid=grid,
        initial_arrays=initial(),
        num_rounds=context.run_config["num-server-rounds"],
        train_config=ConfigRecord({"half": True}),
    )


@client.train()
def train(message: Message, context: Context) -> Message:
    partition = partition_of(context)
    weights = trained(to_numpy(message.content["arrays"]), partition, round_of(message))
    metrics = {"num-examples": len(data(partition)[0]), "train-loss": loss(weights, partition)}
    content = RecordDict({"arrays": packed(weights), "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)


@client.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    partition = partition_of(context)
    value = loss(to_numpy(message.content["arrays"]), partition)
    metrics = {"num-examples": len(data(partition)[0]), "loss": value}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)
