"""Record keys and the weighting metric of the app's own."""

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .task import initial, loss, partition_of, to_numpy, to_record, trained

server = ServerApp()
client = ClientApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    strategy = FedAvg(
        weighted_by_key="batches", arrayrecord_key="model", configrecord_key="settings"
    )
    strategy.start(
        grid=grid, initial_arrays=initial(), num_rounds=context.run_config["num-server-rounds"]
    )


@client.train()
def train(message: Message, context: Context) -> Message:
    partition, number = partition_of(context), message.content["settings"]["server-round"]
    weights = trained(to_numpy(message.content["model"]), partition, number)
    metrics = MetricRecord({"batches": 3 + partition, "train-loss": loss(weights, partition)})
    content = RecordDict({"model": to_record(weights), "numbers": metrics})
    return Message(content, reply_to=message)


@client.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    value = loss(to_numpy(message.content["model"]), partition_of(context))
    metrics = MetricRecord({"batches": 1 + partition_of(context), "loss": value})
    return Message(RecordDict({"numbers": metrics}), reply_to=message)
