"""Mods on the app and on one function, in their order, Flower's own among them."""

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import arrays_size_mod, message_size_mod
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .task import (
    data,
    evaluate,
    initial,
    loss,
    partition_of,
    round_of,
    to_numpy,
    to_record,
    trained,
)


def outer(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Doubles the example count and adds one to the loss."""
    reply = call_next(message, context)
    reply.content["metrics"]["num-examples"] *= 2
    reply.content["metrics"]["train-loss"] += 1
    return reply


def inner(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Halves the weights that come in, and squares the loss that goes out."""
    weights = to_numpy(message.content["arrays"])
    message.content["arrays"] = to_record({name: array / 2 for name, array in weights.items()})
    reply = call_next(message, context)
    reply.content["metrics"]["train-loss"] **= 2
    return reply


server = ServerApp()
client = ClientApp(mods=[message_size_mod])
client.evaluate()(evaluate)


@server.main()
def main(grid: Grid, context: Context) -> None:
    FedAvg().start(
        grid=grid, initial_arrays=initial(), num_rounds=context.run_config["num-server-rounds"]
    )


@client.train(mods=[outer, inner, arrays_size_mod])
def train(message: Message, context: Context) -> Message:
    partition = partition_of(context)
    weights = trained(to_numpy(message.content["arrays"]), partition, round_of(message))
    metrics = {"num-examples": len(data(partition)[0]), "train-loss": loss(weights, partition)}
    content = RecordDict({"arrays": to_record(weights), "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)
