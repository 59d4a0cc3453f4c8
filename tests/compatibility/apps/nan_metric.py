"""A client without a training set reports a training loss of NaN; its strategy leaves it out."""

import math

from flwr.app import Context, Message, MetricRecord, RecordDict
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


def known(contents: list[RecordDict], weighted_by: str) -> MetricRecord:
    """The mean over the clients that have a value."""
    values = [content["metrics"]["train-loss"] for content in contents]
    values = [value for value in values if not math.isnan(value)]
    return MetricRecord({"train-loss": sum(values) / len(values), "known": len(values)})


@server.main()
def main(grid: Grid, context: Context) -> None:
    FedAvg(train_metrics_aggr_fn=known).start(
        grid=grid, initial_arrays=initial(), num_rounds=context.run_config["num-server-rounds"]
    )


@client.train()
def train(message: Message, context: Context) -> Message:
    partition = partition_of(context)
    weights = trained(to_numpy(message.content["arrays"]), partition, round_of(message))
    found = math.nan if partition == 2 else loss(weights, partition)
    metrics = {"num-examples": len(data(partition)[0]), "train-loss": found}
    content = RecordDict({"arrays": to_record(weights), "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)
