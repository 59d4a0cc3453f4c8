"""The older interface: scikit-learn in a ``NumPyClient``, with ``server_fn``."""

import warnings

import numpy as np
from flwr.app import Context
from flwr.client import Client, NumPyClient
from flwr.clientapp import ClientApp
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.serverapp import ServerApp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from .task import FEATURES, data


class Flower(NumPyClient):
    """Logistic regression: is the target positive?"""

    def __init__(self, partition: int) -> None:
        x, y = data(partition)
        self.x, self.y = x, (y > 0).astype(int)
        self.model = LogisticRegression(max_iter=3, warm_start=True)
        self.model.classes_ = np.array([0, 1])

    def _set(self, parameters: list[np.ndarray]) -> None:
        self.model.coef_, self.model.intercept_ = parameters

    def fit(self, parameters: list[np.ndarray], config: dict) -> tuple[list[np.ndarray], int, dict]:
        self._set([np.array(array) for array in parameters])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model.fit(self.x, self.y)
        found = self.model.score(self.x, self.y)
        return [self.model.coef_, self.model.intercept_], len(self.x), {"accuracy": float(found)}

    def evaluate(self, parameters: list[np.ndarray], config: dict) -> tuple[float, int, dict]:
        self._set(parameters)
        value = log_loss(self.y, self.model.predict_proba(self.x), labels=[0, 1])
        return float(value), len(self.x), {"accuracy": float(self.model.score(self.x, self.y))}


def client_fn(context: Context) -> Client:
    return Flower(int(context.node_config["partition-id"])).to_client()


def weighted(metrics: list[tuple[int, dict]]) -> dict:
    """The accuracy over all examples."""
    total = sum(count for count, _ in metrics)
    return {"accuracy": sum(count * found["accuracy"] for count, found in metrics) / total}


def server_fn(context: Context) -> ServerAppComponents:
    start = [np.zeros((1, FEATURES)), np.zeros(1)]
    strategy = FedAvg(
        min_available_clients=2,
        initial_parameters=ndarrays_to_parameters(start),
        fit_metrics_aggregation_fn=weighted,
        evaluate_metrics_aggregation_fn=weighted,
    )
    rounds = int(context.run_config["num-server-rounds"])
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds))


client = ClientApp(client_fn)
server = ServerApp(server_fn=server_fn)
