"""Actions, lifespans of both sides, and a client's state that counts its messages."""

from collections.abc import Iterator

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from .task import partition_of, wait_for_nodes

server = ServerApp()
client = ClientApp()


@server.lifespan()
def serving(context: Context) -> Iterator[None]:
    context.state["began"] = ConfigRecord({"with": [context.run_config["greeting"]]})
    yield


@client.lifespan()
def living(context: Context) -> Iterator[None]:
    count = context.state.config_records.get("calls", ConfigRecord({"count": 0}))["count"]
    context.state["calls"] = ConfigRecord({"count": count + 1})
    yield


@server.main()
def main(grid: Grid, context: Context) -> None:
    wait_for_nodes(grid, context)
    table: dict[str, list] = {"action": [], "partition": [], "calls": []}
    for action in ("train.first", "train.second", "evaluate.third", "query.first"):
        messages = [Message(RecordDict(), node, action) for node in grid.get_node_ids()]
        answers = [reply.content["answer"] for reply in grid.send_and_receive(messages)]
        for answer in sorted(answers, key=lambda answer: answer["partition"]):
            table["action"].append(answer["action"])
            table["partition"].append(answer["partition"])
            table["calls"].append(answer["calls"])
    context.state["calls"] = ConfigRecord(table)


def _answer(message: Message, context: Context, action: str) -> Message:
    answer = {
        "action": action,
        "partition": partition_of(context),
        "calls": context.state["calls"]["count"],
    }
    return Message(RecordDict({"answer": ConfigRecord(answer)}), reply_to=message)


@client.train("first")
def train_first(message: Message, context: Context) -> Message:
    return _answer(message, context, "train first")


@client.train("second")
def train_second(message: Message, context: Context) -> Message:
    return _answer(message, context, "train second")


@client.evaluate("third")
def evaluate_third(message: Message, context: Context) -> Message:
    return _answer(message, context, "evaluate third")


@client.query("first")
def query_first(message: Message, context: Context) -> Message:
    return _answer(message, context, "query first")
