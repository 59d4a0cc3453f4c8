"""Clients report numpy scalars, and lists of them."""

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
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

server = ServerApp()
client = ClientApp()
client.evaluate()(evaluate)


@server.main()
def main(grid: Grid, context: Context) -> None:
    FedAvg().start(
        grid=grid,
        initial_arrays=initial(),
        num_rounds=context.run_config["num-server-rounds"],
        train_config=ConfigRecord({"lr": np.float64(0.02)}),
    )


@client.train()
def train(message: Message, context: Context) -> Message:
    partition = partition_of(context)
    weights = trained(to_numpy(message.content["arrays"]), partition, round_of(message))
    metrics = {
        "num-examples": len(data(partition)[0]),
        "train-loss": np.float64(loss(weights, partition)),
        "norms": [np.float64(abs(weights["w"]).sum()), np.float64(message.content["config"]["lr"])],
    }
    content = RecordDict({"arrays": to_record(weights), "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)
