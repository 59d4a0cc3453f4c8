"""No evaluation at all: the training loss is the only metric."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .task import initial, plain_client

server = ServerApp()
client = plain_client()


@server.main()
def main(grid: Grid, context: Context) -> None:
    strategy = FedAvg(fraction_evaluate=0.0)
    strategy.start(
        grid=grid, initial_arrays=initial(), num_rounds=context.run_config["num-server-rounds"]
    )
