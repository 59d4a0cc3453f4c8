"""Federated analytics with pandas: histograms and moments by ``query``; nothing is trained."""

import numpy as np
import pandas as pd
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from .task import data, partition_of, wait_for_nodes

server = ServerApp()
client = ClientApp()
COLUMNS = ["a", "b", "c", "d"]


@server.main()
def main(grid: Grid, context: Context) -> None:
    wait_for_nodes(grid, context)
    edges = ConfigRecord({"edges": np.linspace(-3, 3, 7).tolist(), "columns": COLUMNS})
    messages = [
        Message(RecordDict({"query": edges}), node, "query") for node in grid.get_node_ids()
    ]
    replies = [reply.content for reply in grid.send_and_receive(messages, timeout=60)]
    table: dict[str, list] = {"column": [], "count": [], "mean": [], "histogram": []}
    for name in COLUMNS:
        records = [reply["results"] for reply in replies]
        counts = np.sum([record[f"{name}-histogram"] for record in records], axis=0)
        number = sum(record["rows"] for record in records)
        table["column"].append(name)
        table["count"].append(int(number))
        table["mean"].append(sum(record[f"{name}-sum"] for record in records) / number)
        table["histogram"].append(",".join(map(str, counts)))
    context.state["columns"] = ConfigRecord(table)


@client.query()
def query(message: Message, context: Context) -> Message:
    asked = message.content["query"]
    frame = pd.DataFrame(data(partition_of(context))[0], columns=COLUMNS)
    found: dict[str, int | float | list[int]] = {"rows": len(frame)}
    for name in asked["columns"]:
        bins = pd.cut(frame[name], asked["edges"]).value_counts(sort=False)
        found |= {f"{name}-histogram": bins.astype(int).tolist(), f"{name}-sum": frame[name].sum()}
    return Message(RecordDict({"results": MetricRecord(found)}), reply_to=message)
