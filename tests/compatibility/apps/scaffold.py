"""SCAFFOLD: two array records in every message, the model's and the control variates'."""

from collections.abc import Iterable

import numpy as np
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
    round_of,
    to_numpy,
    to_record,
    trained,
)

server = ServerApp()
client = ClientApp()
client.evaluate()(evaluate)


class Scaffold(FedAvg):
    """Karimireddy et al. 2020 (https://arxiv.org/abs/1910.06378), with plain means."""

    def __init__(self) -> None:
        super().__init__()
        self.control = {name: np.zeros_like(array) for name, array in to_numpy(initial()).items()}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        for message in super().configure_train(server_round, arrays, config, grid):
            if server_round > 1:  # the first ones are zero
                message.content["control"] = to_record(self.control)
            yield message

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        contents = [reply.content for reply in replies if reply.has_content()]
        models = [to_numpy(content["arrays"]) for content in contents]
        changes = [to_numpy(content["control-change"]) for content in contents]
        for name in self.control:
            self.control[name] = self.control[name] + np.mean([c[name] for c in changes], axis=0)
        mean = {name: np.mean([model[name] for model in models], axis=0) for name in models[0]}
        found = np.mean([content["metrics"]["train-loss"] for content in contents])
        return to_record(mean), MetricRecord({"train-loss": float(found)})


@server.main()
def main(grid: Grid, context: Context) -> None:
    Scaffold().start(
        grid=grid, initial_arrays=initial(), num_rounds=context.run_config["num-server-rounds"]
    )


@client.train()
def train(message: Message, context: Context) -> Message:
    partition = partition_of(context)
    before = to_numpy(message.content["arrays"])
    zero = {name: np.zeros_like(array) for name, array in before.items()}
    control = to_numpy(message.content.array_records.get("control", to_record(zero)))
    after = trained(before, partition, round_of(message))
    after = {name: (after[name] - 0.1 * control[name]).astype(np.float32) for name in after}
    change = {name: (0.1 * (before[name] - after[name])).astype(np.float32) for name in after}
    metrics = {"num-examples": len(data(partition)[0]), "train-loss": loss(after, partition)}
    content = RecordDict(
        {
            "arrays": to_record(after),
            "control-change": to_record(change),
            "metrics": MetricRecord(metrics),
        }
    )
    return Message(content, reply_to=message)
