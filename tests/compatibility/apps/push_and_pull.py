"""Messages are pushed, and replies pulled as they come."""

import time

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from .task import initial, plain_client, to_numpy, to_record, wait_for_nodes

server = ServerApp()
client = plain_client()


@server.main()
def main(grid: Grid, context: Context) -> None:
    wait_for_nodes(grid, context)
    arrays = initial()
    for number in range(1, context.run_config["num-server-rounds"] + 1):
        content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": number})})
        nodes = list(grid.get_node_ids())
        waiting = set(grid.push_messages([Message(content, node, "train") for node in nodes]))
        updates, end = {}, time.monotonic() + 60
        while waiting and time.monotonic() < end:
            for reply in grid.pull_messages(list(waiting)):
                waiting.discard(reply.metadata.reply_to_message_id)
                updates[reply.metadata.src_node_id] = to_numpy(reply.content["arrays"])
            time.sleep(0.01)
        mean = {
            name: np.mean([updates[node][name] for node in sorted(updates)], axis=0)
            for name in arrays
        }
        arrays = to_record(mean)
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": number})})
    replies = grid.send_and_receive([Message(content, node, "evaluate") for node in nodes])
    losses = sorted(reply.content["metrics"]["loss"] for reply in replies)
    context.state["losses"] = ConfigRecord({"loss": losses})
