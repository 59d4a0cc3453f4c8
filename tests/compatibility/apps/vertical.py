"""Vertical learning: a client has one column, sends its part of the sum and gets the gradient."""

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from .task import data, partition_of, wait_for_nodes

server = ServerApp()
client = ClientApp()
EXAMPLES = data(5)
"""Of all clients together: they hold columns of the same rows."""


@server.main()
def main(grid: Grid, context: Context) -> None:
    wait_for_nodes(grid, context)
    _, y = EXAMPLES
    losses = []
    for number in range(1, context.run_config["num-server-rounds"] + 1):
        config = ConfigRecord({"server-round": number})
        asked = RecordDict({"config": config})
        replies = list(
            grid.send_and_receive(
                [Message(asked, node, "query.forward") for node in grid.get_node_ids()]
            )
        )
        parts = [reply.content["part"]["sum"].numpy() for reply in replies]
        error = np.sum(parts, axis=0) - y
        losses.append(float(np.mean(error**2)))
        content = RecordDict({"gradient": ArrayRecord({"error": Array(error)}), "config": config})
        messages = [
            Message(content, reply.metadata.src_node_id, "train.backward") for reply in replies
        ]
        found = [reply.content["metrics"]["weight"] for reply in grid.send_and_receive(messages)]
    context.state["losses"] = ConfigRecord({"loss": losses})
    context.state["weights"] = ConfigRecord({"weight": sorted(found)})


def _weight(context: Context) -> float:
    return context.state.metric_records.get("weight", MetricRecord({"value": 0.0}))["value"]


@client.query("forward")
def forward(message: Message, context: Context) -> Message:
    column = EXAMPLES[0][:, partition_of(context)]
    part = ArrayRecord({"sum": Array(column * _weight(context))})
    return Message(RecordDict({"part": part}), reply_to=message)


@client.train("backward")
def backward(message: Message, context: Context) -> Message:
    column, error = EXAMPLES[0][:, partition_of(context)], message.content["gradient"]["error"]
    weight = _weight(context) - 0.3 * float(np.mean(error.numpy() * column))
    context.state["weight"] = MetricRecord({"value": weight})
    return Message(RecordDict({"metrics": MetricRecord({"weight": weight})}), reply_to=message)
