"""Differential privacy on the server: a wrapper around FedAvg clips updates and adds noise."""

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
)

from .task import initial, plain_client, wait_for_nodes

server = ServerApp()
client = plain_client()


@server.main()
def main(grid: Grid, context: Context) -> None:
    wait_for_nodes(grid, context)
    np.random.seed(3)  # Flower draws the noise from numpy's global generator
    clients = len(list(grid.get_node_ids()))
    if context.run_config["adaptive"]:
        strategy = DifferentialPrivacyServerSideAdaptiveClipping(FedAvg(), 0.3, clients)
    else:
        strategy = DifferentialPrivacyServerSideFixedClipping(FedAvg(), 0.2, 1.0, clients)
    strategy.start(
        grid=grid, initial_arrays=initial(), num_rounds=context.run_config["num-server-rounds"]
    )
