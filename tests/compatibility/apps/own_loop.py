"""A loop that the app wrote itself, without a strategy."""

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from .task import initial, plain_client, to_numpy, to_record, wait_for_nodes

server = ServerApp()
client = plain_client()


def ask(grid: Grid, kind: str, arrays: ArrayRecord, number: int) -> list[RecordDict]:
    """The contents of all nodes' replies."""
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": number})})
    messages = [Message(content, node, kind) for node in grid.get_node_ids()]
    replies = grid.send_and_receive(messages, timeout=60)
    return [reply.content for reply in replies if reply.has_content()]


@server.main()
def main(grid: Grid, context: Context) -> None:
    wait_for_nodes(grid, context)
    arrays, losses = initial(), []
    for number in range(1, context.run_config["num-server-rounds"] + 1):
        updates = [to_numpy(content["arrays"]) for content in ask(grid, "train", arrays, number)]
        mean = {name: np.mean([update[name] for update in updates], axis=0) for name in updates[0]}
        arrays = to_record(mean)
        found = [content["metrics"]["loss"] for content in ask(grid, "evaluate", arrays, number)]
        losses.append(float(np.mean(found)))
    context.state["losses"] = ConfigRecord({"loss": losses})
