"""Loads the app's ServerApp, or stands in for it: FedAvg from initial weights of the app's."""

from __future__ import annotations

import random
from typing import cast

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from edge.training.app_bundle import AppError, FlowerApp
from edge.training.app_modules import load_component
from fl_runtime.run.errors import RunFailed
from fl_runtime.server.model.hooks import load_hook

DEFAULT_ROUNDS = 3
GET_PARAMETERS = "get_parameters"
"""Message type of Flower's older clients: asks for initial weights."""


def server_app_of(app: FlowerApp) -> ServerApp:
    """The app's ServerApp, or the default one when it has none; raises RunFailed."""
    if not app.server_app:
        return default_server_app(app)
    try:
        return cast(ServerApp, load_component(app.folder, app.server_app, ServerApp))
    except AppError as error:
        raise RunFailed("app-load", str(error)) from error


def default_server_app(app: FlowerApp) -> ServerApp:
    """FedAvg over all devices.

    The initial weights come from ``[tool.mledgeops] initial-arrays``, or else from one client's
    ``get_parameters``.
    """
    server = ServerApp()

    @server.main()  # type: ignore[untyped-decorator]  # Flower's
    def main(grid: Grid, context: Context) -> None:
        least = min(2, len(list(grid.get_node_ids())))
        strategy = FedAvg(
            min_train_nodes=least, min_evaluate_nodes=least, min_available_nodes=least
        )
        strategy.start(
            grid=grid, initial_arrays=_initial_arrays(app, grid), num_rounds=_rounds(app, context)
        )

    return server


def _rounds(app: FlowerApp, context: Context) -> int:
    value = context.run_config.get(app.rounds_key, DEFAULT_ROUNDS)
    if not isinstance(value, int) or isinstance(value, bool):
        raise RunFailed("app-load", f"{app.rounds_key} is {value!r}; it must be a whole number.")
    return value


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
            "The app has no ServerApp, and a device's get_parameters gave no initial weights "
            f"({reply.error.reason}); name a function by [tool.mledgeops] initial-arrays.",
        )
    tensors = reply.content["getparametersres.parameters"].values()
    return ArrayRecord({str(i): Array(tensor.numpy()) for i, tensor in enumerate(tensors)})
