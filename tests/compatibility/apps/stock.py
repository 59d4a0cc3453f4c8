"""A stock strategy of Flower's, named by the app's configuration."""

import json

import flwr.serverapp.strategy as strategies
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

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

server = ServerApp()
client = ClientApp()
client.evaluate()(evaluate)


@server.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    kind = getattr(strategies, config["strategy"])
    strategy = kind(**json.loads(config["arguments"]))
    strategy.start(grid=grid, initial_arrays=initial(), num_rounds=config["num-server-rounds"])


@client.train()
def train(message: Message, context: Context) -> Message:
    partition = partition_of(context)
    pull = message.content["config"].get("proximal-mu", 0.0)  # FedProx sends it
    weights = to_numpy(message.content["arrays"])
    weights = trained(weights, partition, round_of(message), pull)
    metrics = {"num-examples": len(data(partition)[0]), "train_loss": loss(weights, partition)}
    content = RecordDict({"arrays": to_record(weights), "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)
