"""Every type of value that a record may hold, there and back."""

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from .task import wait_for_nodes

server = ServerApp()
client = ClientApp()
VALUES = {
    "int": -(2**62),
    "float": 0.1,
    "bool": True,
    "text": "Füße \u2603",
    "bytes": bytes(range(256)),
    "ints": [1, 2**62],
    "floats": [0.5, 1e-300],
    "bools": [True, False],
    "texts": ["", "a"],
    "blobs": [b"", b"\x00\xff"],
    "empty": [],
}


@server.main()
def main(grid: Grid, context: Context) -> None:
    wait_for_nodes(grid, context)
    content = RecordDict(
        {"values": ConfigRecord(VALUES), "numbers": MetricRecord({"one": 1, "some": [0.5, 2.0]})}
    )
    replies = grid.send_and_receive(
        [Message(content, node, "query") for node in grid.get_node_ids()]
    )
    answers = [reply.content for reply in replies]
    context.state["seen"] = ConfigRecord(
        {
            "same": [int(dict(answer["values"]) == VALUES) for answer in answers],
            "types": [
                ",".join(type(value).__name__ for value in answer["values"].values())
                for answer in answers
            ],
            "some": [answer["numbers"]["some"][1] for answer in answers],
        }
    )


@client.query()
def query(message: Message, context: Context) -> Message:
    return Message(message.content, reply_to=message)
