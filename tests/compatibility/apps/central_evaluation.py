"""``evaluate_fn`` with numpy scalars among its metrics."""

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .task import central_loss, initial, plain_client, to_numpy

server = ServerApp()
client = plain_client()


def evaluated(number: int, arrays: ArrayRecord) -> MetricRecord:
    value = central_loss(to_numpy(arrays))
    return MetricRecord({"loss": np.float64(value), "rounds": number})


@server.main()
def main(grid: Grid, context: Context) -> None:
    rounds = context.run_config["num-server-rounds"]
    strategy = FedAvg(fraction_evaluate=context.run_config["fraction-evaluate"])
    strategy.start(grid=grid, initial_arrays=initial(), num_rounds=rounds, evaluate_fn=evaluated)
