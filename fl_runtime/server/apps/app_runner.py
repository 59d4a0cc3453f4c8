"""Runs an app's ServerApp on a grid, whichever of Flower's interfaces it uses."""

from __future__ import annotations

import logging

from botocore.exceptions import BotoCoreError, ClientError
from flwr.app import Context
from flwr.serverapp import ServerApp

from fl_runtime.run.errors import RunFailed
from fl_runtime.server.apps.legacy_app import run_server_fn
from fl_runtime.server.grid.flower_compat import round_loop, uses_server_fn
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.rounds.round_loop import FinishedRounds, RoundLoop

logger = logging.getLogger(__name__)


def run_app(app: ServerApp, grid: IoTGrid, context: Context, loop: RoundLoop) -> FinishedRounds:
    """Run the app to its end, with our round loop in the place of ``Strategy.start``.

    Raises:
        RunFailed: the app raised, ended without a model, or the run cannot go on.
    """
    try:
        if uses_server_fn(app):
            return run_server_fn(app, grid, context, loop)
        with round_loop(IoTGrid, loop):
            app(grid, context)
    except (RunFailed, ClientError, BotoCoreError):
        raise
    except Exception as error:  # the app's own code: its failure is the run's reason
        logger.exception("server-app-failed")
        raise RunFailed(
            "server-app", f"The app's ServerApp raised {type(error).__name__}: {error}"
        ) from error
    # An app may end without ever starting a strategy, or start it on a grid of its own.
    if not loop.finished.result.arrays:
        raise RunFailed(
            "no-model",
            "The app's ServerApp ended without a strategy's start(), so there is no model.",
        )
    return loop.finished
