"""A client answers with 16 MiB of bytes in a configuration record."""

import hashlib

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from .task import partition_of, rng, wait_for_nodes

server = ServerApp()
client = ClientApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    wait_for_nodes(grid, context)
    messages = [Message(RecordDict(), node, "query") for node in grid.get_node_ids()]
    found = [reply.content["blob"]["data"] for reply in grid.send_and_receive(messages)]
    digests = sorted(hashlib.sha256(data).hexdigest() for data in found)
    context.state["digests"] = ConfigRecord({"sha256": digests})


@client.query()
def query(message: Message, context: Context) -> Message:
    data = rng(3, partition_of(context)).bytes(16 * 2**20)
    return Message(RecordDict({"blob": ConfigRecord({"data": data})}), reply_to=message)
