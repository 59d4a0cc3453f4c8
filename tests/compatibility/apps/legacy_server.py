"""The older interface: ``server_fn`` with central evaluation and a configuration by round."""

import numpy as np
from flwr.app import Context
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.serverapp import ServerApp

from .legacy import client, mean
from .task import FEATURES, central_loss


def evaluated(number: int, parameters: list[np.ndarray], config: dict) -> tuple[float, dict]:
    """The loss on the server's own data."""
    value = central_loss(dict(zip(("w", "b"), parameters, strict=True)))
    return value, {"root": float(np.sqrt(value))}


def server_fn(context: Context) -> ServerAppComponents:
    start = [np.zeros(FEATURES, np.float32), np.zeros(1, np.float32)]
    strategy = FedAvg(
        min_available_clients=2,
        initial_parameters=ndarrays_to_parameters(start),
        on_fit_config_fn=lambda number: {"round": number},
        fit_metrics_aggregation_fn=mean,
        evaluate_fn=evaluated,
    )
    rounds = int(context.run_config["num-server-rounds"])
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds))


server = ServerApp(server_fn=server_fn)
__all__ = ["client", "server"]
