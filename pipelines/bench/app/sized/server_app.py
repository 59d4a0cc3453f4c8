"""The ServerApp: Flower's FedAvg with all devices, on a model of ``parameters`` weights."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()  # type: ignore[untyped-decorator]  # Flower's
def main(grid: Grid, context: Context) -> None:
    """Run the rounds that the configuration asks for."""
    config = context.run_config
    weights = np.ones(int(config["parameters"]), np.float32)
    devices = int(config["num-devices"])
    strategy = FedAvg(
        min_train_nodes=devices, min_evaluate_nodes=devices, min_available_nodes=devices
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord({"w": Array(weights)}),
        num_rounds=int(config["num-server-rounds"]),
    )
