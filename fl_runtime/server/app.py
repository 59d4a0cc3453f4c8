"""Loads the app's ServerApp, or stands in for it: FedAvg from the clients' own initial weights."""

from __future__ import annotations

import logging
import random
from typing import cast

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from edge.training.app_bundle import AppError, FlowerApp
from edge.training.app_modules import load_component
from fl_runtime.run.errors import RunFailed
from fl_runtime.server.model.artifact import load_hook

logger = logging.getLogger(__name__)

GET_PARAMETERS = "get_parameters"


def server_app_of(app: FlowerApp) -> ServerApp:
    """The app's ServerApp, or ours when it has none; raises RunFailed."""
    if not app.server_app:
        return default_server_app(app)
    try:
        component = cast(ServerApp, load_component(app.folder, app.server_app, ServerApp))
    except AppError as error:
        raise RunFailed("app-load", str(error)) from error
    return component


def default_server_app(app: FlowerApp) -> ServerApp:
    """FedAvg over all devices. Initial weights: ``[tool.mledgeops] initial-arrays``, else a
    client's ``get_parameters``.
    """
    server = ServerApp()

    @server.main()  # type: ignore[untyped-decorator]  # Flower's
    def main(grid: Grid, context: Context) -> None:  # noqa: ARG001  # Flower's signature
        nodes = len(list(grid.get_node_ids()))
        strategy = FedAvg(
            min_train_nodes=min(2, nodes),
            min_evaluate_nodes=min(2, nodes),
            min_available_nodes=min(2, nodes),
        )
        strategy.start(grid=grid, initial_arrays=_initial_arrays(app, grid))

    return server


def _initial_arrays(app: FlowerApp, grid: Grid) -> ArrayRecord:
    hook = load_hook(app, "initial-arrays")
    if hook is not None:
        return ArrayRecord({name: Array(array) for name, array in hook().items()})
    node = random.choice(sorted(grid.get_node_ids()))  # noqa: S311  # any device will do
    content = RecordDict({"getparametersins.config": ConfigRecord()})
    (reply,) = grid.send_and_receive([Message(content, node, GET_PARAMETERS)])
    if reply.has_error():
        raise RunFailed(
            "initial-arrays",
            f"The app has no ServerApp, and a device's get_parameters gave no initial weights ({reply.error.reason}); "
            "name a function by [tool.mledgeops] initial-arrays.",
        )
    return ArrayRecord(
        {
            str(i): Array(tensor.numpy())
            for i, tensor in enumerate(reply.content["getparametersres.parameters"].values())
        }
    )
