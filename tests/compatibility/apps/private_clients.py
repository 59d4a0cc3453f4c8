"""Differential privacy on the clients: clipping mods with the server's wrapper, or local noise."""

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    FedAvg,
)

from . import task
from .task import initial, partition_of, round_of, wait_for_nodes

MODS = {
    "fixed": fixedclipping_mod,
    "adaptive": adaptiveclipping_mod,
    "local": LocalDpMod(clipping_norm=0.5, sensitivity=0.1, epsilon=1.0, delta=1e-5),
}
server = ServerApp()
client = ClientApp()
client.evaluate()(task.evaluate)


@server.main()
def main(grid: Grid, context: Context) -> None:
    wait_for_nodes(grid, context)
    np.random.seed(3)  # Flower draws the noise from numpy's global generator
    clients = len(list(grid.get_node_ids()))
    strategy = FedAvg()
    if context.run_config["privacy"] == "fixed":
        strategy = DifferentialPrivacyClientSideFixedClipping(strategy, 0.2, 1.0, clients)
    elif context.run_config["privacy"] == "adaptive":
        strategy = DifferentialPrivacyClientSideAdaptiveClipping(strategy, 0.3, clients)
    strategy.start(
        grid=grid, initial_arrays=initial(), num_rounds=context.run_config["num-server-rounds"]
    )


def chosen(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """The mod that the configuration names. The noise of a device depends on nothing else."""
    before = np.random.get_state()
    np.random.seed(100 * round_of(message) + partition_of(context))
    try:
        return MODS[context.run_config["privacy"]](message, context, call_next)
    finally:
        np.random.set_state(before)


@client.train(mods=[chosen])
def train(message: Message, context: Context) -> Message:
    return task.train(message, context)
