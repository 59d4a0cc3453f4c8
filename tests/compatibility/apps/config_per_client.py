"""Each client gets a configuration of its own, and evaluates only every second round."""

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .task import (
    data,
    evaluate,
    initial,
    loss,
    partition_of,
    to_numpy,
    to_record,
    trained,
    wait_for_nodes,
)

server = ServerApp()
client = ClientApp()
client.evaluate()(evaluate)


class OwnConfig(FedAvg):
    """Asks each client for another number of epochs."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        for place, node in enumerate(sorted(grid.get_node_ids())):
            own = ConfigRecord({"server-round": server_round, "epochs": 1 + place % 2})
            yield Message(RecordDict({"arrays": arrays, "config": own}), node, "train")

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        if server_round % 2:
            return []
        return super().configure_evaluate(server_round, arrays, config, grid)


@server.main()
def main(grid: Grid, context: Context) -> None:
    wait_for_nodes(grid, context)
    OwnConfig().start(
        grid=grid, initial_arrays=initial(), num_rounds=context.run_config["num-server-rounds"]
    )


@client.train()
def train(message: Message, context: Context) -> Message:
    partition, config = partition_of(context), message.content["config"]
    weights = to_numpy(message.content["arrays"])
    for epoch in range(config["epochs"]):
        weights = trained(weights, partition, 10 * config["server-round"] + epoch)
    metrics = {"num-examples": len(data(partition)[0]), "train-loss": loss(weights, partition)}
    content = RecordDict({"arrays": to_record(weights), "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)
