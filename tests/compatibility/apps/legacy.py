"""The older interface with ``@app.main()``: a workflow, plain or with SecAgg+."""

import numpy as np
from flwr.app import Context
from flwr.client import Client, NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import ndarrays_to_parameters
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp import Grid, ServerApp

from .task import FEATURES, data, loss, trained, wait_for_nodes


class Flower(NumPyClient):
    """The linear model."""

    def __init__(self, partition: int) -> None:
        self.partition = partition

    def fit(self, parameters: list[np.ndarray], config: dict) -> tuple[list[np.ndarray], int, dict]:
        weights = dict(zip(("w", "b"), parameters, strict=True))
        weights = trained(weights, self.partition, int(config["round"]))
        found = {"train-loss": loss(weights, self.partition)}
        return [weights["w"], weights["b"]], len(data(self.partition)[0]), found

    def evaluate(self, parameters: list[np.ndarray], config: dict) -> tuple[float, int, dict]:
        weights = dict(zip(("w", "b"), parameters, strict=True))
        return loss(weights, self.partition), len(data(self.partition)[0]), {}


def client_fn(context: Context) -> Client:
    return Flower(int(context.node_config["partition-id"])).to_client()


def mean(metrics: list[tuple[int, dict]]) -> dict:
    """The training loss, unweighted."""
    return {"train-loss": float(np.mean([found["train-loss"] for _, found in metrics]))}


server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    wait_for_nodes(grid, context)
    start = [np.zeros(FEATURES, np.float32), np.zeros(1, np.float32)]
    strategy = FedAvg(
        min_available_clients=len(list(grid.get_node_ids())),
        initial_parameters=ndarrays_to_parameters(start),
        on_fit_config_fn=lambda number: {"round": number},
        fit_metrics_aggregation_fn=mean,
    )
    config = ServerConfig(num_rounds=int(context.run_config["num-server-rounds"]))
    legacy = LegacyContext(context=context, config=config, strategy=strategy)
    secure = SecAggPlusWorkflow(num_shares=3, reconstruction_threshold=2)
    fit = secure if context.run_config["secure"] else None
    DefaultWorkflow(fit_workflow=fit)(grid, legacy)


client = ClientApp(client_fn)
secure_client = ClientApp(client_fn, mods=[secaggplus_mod])
