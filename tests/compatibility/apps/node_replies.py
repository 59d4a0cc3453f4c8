"""Two messages to one node, an unknown node, a client that fails, group ids and actions."""

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from .task import partition_of, wait_for_nodes

server = ServerApp()
client = ClientApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    wait_for_nodes(grid, context)
    nodes = sorted(grid.get_node_ids())
    content = RecordDict({"config": ConfigRecord({"number": 7})})
    asked = [Message(content, node, "query.echo", group_id="g1") for node in nodes]
    twice = [Message(content, nodes[0], "query.echo"), Message(content, nodes[0], "query.echo")]
    missing = [Message(content, 4242, "query.echo")]
    failing = [Message(content, node, "query.broken") for node in nodes]
    table: dict[str, list] = {"kind": [], "partition": [], "number": [], "group": [], "failed": []}
    for kind, messages in (
        ("asked", asked),
        ("twice", twice),
        ("missing", missing),
        ("broken", failing),
    ):
        for reply in sorted(grid.send_and_receive(messages), key=_place):
            found = {} if reply.has_error() else reply.content["answer"]
            table["kind"].append(kind)
            table["partition"].append(found.get("partition", -1))
            table["number"].append(found.get("number", -1))
            table["group"].append(found.get("group", ""))
            table["failed"].append(int(reply.has_error()))
    context.state["replies"] = ConfigRecord(table)


def _place(reply: Message) -> tuple[int, int]:
    partition = -1 if reply.has_error() else reply.content["answer"]["partition"]
    return partition, reply.metadata.src_node_id


@client.query("echo")
def echo(message: Message, context: Context) -> Message:
    answer = {
        "partition": partition_of(context),
        "number": message.content["config"]["number"],
        "group": message.metadata.group_id,
    }
    return Message(RecordDict({"answer": ConfigRecord(answer)}), reply_to=message)


@client.query("broken")
def broken(message: Message, context: Context) -> Message:
    if partition_of(context) == 1:
        raise ValueError("no such column")
    return echo(message, context)
