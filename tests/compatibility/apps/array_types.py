"""Arrays of every usual type and shape: scalars, integers, booleans, empty, Fortran order."""

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from .task import to_numpy, to_record, wait_for_nodes

server = ServerApp()
client = ClientApp()


def arrays() -> dict[str, np.ndarray]:
    """One array of each kind."""
    return {
        "scalar": np.array(1.5, np.float32),
        "double": np.linspace(0, 1, 7),
        "half": np.arange(6, dtype=np.float16).reshape(2, 3),
        "byte": np.arange(256, dtype=np.uint8),
        "long": np.array([[-(2**62), 2**62]]),
        "flags": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float32),
        "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "strided": np.arange(12.0)[::3],
    }


@server.main()
def main(grid: Grid, context: Context) -> None:
    wait_for_nodes(grid, context)
    content = RecordDict({"arrays": to_record(arrays())})
    messages = [Message(content, node, "query") for node in grid.get_node_ids()]
    same, types = [], []
    for reply in grid.send_and_receive(messages):
        found = to_numpy(reply.content["arrays"])
        same.append(int(all(np.array_equal(found[n], a) for n, a in arrays().items())))
        types.append(",".join(f"{array.dtype}{array.shape}" for array in found.values()))
    context.state["seen"] = ConfigRecord({"same": same, "types": types})


@client.query()
def query(message: Message, context: Context) -> Message:
    found: ArrayRecord = message.content["arrays"]
    return Message(RecordDict({"arrays": to_record(to_numpy(found))}), reply_to=message)
