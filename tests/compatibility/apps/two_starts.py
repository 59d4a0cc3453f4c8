"""Two phases of training, each a ``start()`` with a strategy of its own."""

from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdagrad, FedAvg

from .task import initial, plain_client

server = ServerApp()
client = plain_client()


@server.main()
def main(grid: Grid, context: Context) -> None:
    rounds = context.run_config["num-server-rounds"]
    first = FedAvg().start(grid=grid, initial_arrays=initial(), num_rounds=rounds)
    second = FedAdagrad(eta=0.05).start(grid=grid, initial_arrays=first.arrays, num_rounds=rounds)
    losses = [
        result.evaluate_metrics_clientapp[number]["loss"]
        for result in (first, second)
        for number in range(1, rounds + 1)
    ]
    context.state["losses"] = ConfigRecord({"loss": losses})
