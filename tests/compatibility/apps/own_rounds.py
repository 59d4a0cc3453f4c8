"""The app's own call says how many rounds there are; its configuration does not name them."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .task import initial, plain_client

server = ServerApp()
client = plain_client()


@server.main()
def main(grid: Grid, context: Context) -> None:
    FedAvg().start(grid=grid, initial_arrays=initial(), num_rounds=2)
